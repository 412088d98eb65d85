"""The mean of weights: by hand, in float32, in the precision of the first."""

import torch

from rloop.engines.native.averaging import mean_weights


def test_the_mean_is_uniform_and_summed_in_float32():
    # (1 + 2 + 6) / 3 = 3; in bfloat16 256 + 1 would stay 256, and (256 + 1 + 1) / 3 be 85.33
    states = [
        {"a": torch.tensor([first]), "b": torch.tensor([second], dtype=torch.bfloat16)}
        for first, second in ((1.0, 256.0), (2.0, 1.0), (6.0, 1.0))
    ]
    mean = mean_weights(states, seed=0)
    assert mean["a"].tolist() == [3.0]
    assert mean["b"].dtype == torch.bfloat16
    assert mean["b"].item() == 86.0


def test_a_weight_that_moved_in_one_policy_of_four_is_not_rounded_back():
    """1.0078125 follows 1 in bfloat16. A quarter of 40,000 weights goes up: 10,000 of them, with a
    standard deviation of 87; five are 433.
    """
    start, moved = torch.ones(40_000).bfloat16(), torch.full((40_000,), 1.0078125).bfloat16()
    mean = mean_weights([{"w": w} for w in (start, start, moved, start)], seed=0)["w"]
    assert abs(int((mean == moved).sum()) - 10_000) < 433
    assert int((mean == start).sum()) == 40_000 - int((mean == moved).sum())


def test_counters_stay_the_first_ones_and_inputs_stay_as_they_are():
    first = {"w": torch.tensor([1.0]), "n": torch.tensor(3)}
    mean = mean_weights([first, {"w": torch.tensor([3.0]), "n": torch.tensor(5)}], seed=0)
    assert (mean["w"].item(), mean["n"].item()) == (2.0, 3)
    assert first["w"].item() == 1.0
