"""Rounding by chance: on average right, and the same each time."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rloop.policies.rounding import TILE, StochasticRounding

COUNT = 40_000


def rounded(exact: torch.Tensor, *, seed: int = 0, name: str = "w") -> torch.Tensor:
    out = torch.empty_like(exact, dtype=torch.bfloat16)
    StochasticRounding(seed).write(name, exact, out)
    return out.float()


@pytest.mark.parametrize(("exact", "low", "high", "share_high"), [
    # bfloat16 has 7 bits after the point: steps of 1/128 from 1 on, of 1/64 from 2 on
    (1 + 1 / 512, 1.0, 1 + 1 / 128, 0.25),
    (-1 - 3 / 512, -1.0, -1 - 1 / 128, 0.75),
    (2 + 1 / 128, 2.0, 2 + 1 / 64, 0.5),
])  # fmt: skip
def test_a_number_goes_to_its_neighbours_by_how_near_they_are(exact, low, high, share_high):
    """Five standard deviations of a share of 40,000 are at most 0.0125."""
    found = rounded(torch.full((COUNT,), exact))
    is_high = found == high
    assert (is_high | (found == low)).all()
    assert is_high.float().mean().item() == pytest.approx(share_high, abs=0.0125)
    assert found.mean().item() == pytest.approx(exact, abs=0.0125 * abs(high - low))


FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@given(st.lists(FLOATS, min_size=1, max_size=50))
def test_bfloat16_numbers_stay_and_others_move_to_a_neighbour(numbers):
    exact = torch.tensor(numbers)
    grid = exact.bfloat16().float()
    assert torch.equal(rounded(grid), grid)
    # a number's two neighbours are its bits cut off, and those one step further from zero
    low = (exact.view(torch.int32) & ~0xFFFF).view(torch.float32)
    high = ((exact.view(torch.int32) & ~0xFFFF) + 0x10000).view(torch.float32)
    found = rounded(exact)
    assert ((found == low) | (found == high)).all()


def test_the_same_masters_give_the_same_weights_and_a_seed_or_a_name_others():
    exact = torch.linspace(0.1, 0.2, COUNT)
    assert torch.equal(rounded(exact), rounded(exact))
    assert not torch.equal(rounded(exact), rounded(exact, seed=1))
    assert not torch.equal(rounded(exact), rounded(exact, name="v"))


def test_a_weight_never_falls_when_its_master_rises():
    exact = torch.full((COUNT,), 0.1)
    steps = [rounded(exact + 1e-4 * number) for number in range(12)]
    for before, after in pairwise(steps):
        assert (after >= before).all()
    assert (steps[-1] > steps[0]).float().mean() > 0.9  # 11e-4 in all, and a step is 5e-4


def test_a_tensor_of_more_numbers_than_thresholds_is_rounded_to_its_end():
    exact = torch.full((TILE + 10,), 1 + 1 / 256)
    found = rounded(exact)
    assert torch.equal(found[:10], found[TILE:])
    assert found.mean().item() == pytest.approx(1 + 1 / 256, abs=1e-5)


def test_what_is_not_finite_stays_so_and_float32_is_copied():
    broken = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
    broken[1:2].view(torch.int32).fill_(0x7FFFFFFF)  # CUDA's NaN, whose bits would overflow
    assert rounded(broken).tolist() == pytest.approx(broken.tolist(), nan_ok=True)
    exact, out = torch.tensor([0.1, 0.2]), torch.empty(2)
    StochasticRounding(0).write("w", exact, out)
    assert torch.equal(out, exact)
