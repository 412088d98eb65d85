"""The mean of weights: by hand, in float32, in the precision of the first."""

import torch

from rloop.engines.native.averaging import mean_weights


def test_the_mean_is_uniform_and_summed_in_float32():
    # (1 + 2 + 6) / 3 = 3; in bfloat16 256 + 1 would stay 256, so (256 + 1 + 1) / 3 be 85.33
    states = [
        {"a": torch.tensor([first]), "b": torch.tensor([second], dtype=torch.bfloat16)}
        for first, second in ((1.0, 256.0), (2.0, 1.0), (6.0, 1.0))
    ]
    mean = mean_weights(states)
    assert mean["a"].tolist() == [3.0]
    assert mean["b"].dtype == torch.bfloat16
    assert mean["b"].item() == torch.tensor(258 / 3, dtype=torch.bfloat16).item() == 86.0


def test_counters_stay_the_first_ones_and_inputs_stay_as_they_are():
    first = {"w": torch.tensor([1.0]), "n": torch.tensor(3)}
    mean = mean_weights([first, {"w": torch.tensor([3.0]), "n": torch.tensor(5)}])
    assert (mean["w"].item(), mean["n"].item()) == (2.0, 3)
    assert first["w"].item() == 1.0
