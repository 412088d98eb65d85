"""Drawing tokens: hand-worked inversions, truncation and the stated log-probabilities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rloop.engines.native.draw import draw_tokens, invert_cumulative, keep_likely
from rloop.recipe.config import SamplingConfig


def sampling(**changes: float) -> SamplingConfig:
    return SamplingConfig.model_validate({"max_completion_tokens": 4, **changes})


def test_a_uniform_number_picks_the_token_whose_share_of_the_sum_it_falls_into():
    weights = torch.tensor([[1.0, 0.0, 2.0, 1.0]] * 5)
    # running sums 1, 1, 3, 4: 0.2 * 4 = 0.8 -> 0, 0.25 * 4 = 1 -> 2, 0.74 * 4 = 2.96 -> 2, 3 -> 3
    uniforms = torch.tensor([0.2, 0.25, 0.74, 0.75, 0.999999])
    assert invert_cumulative(weights, uniforms).tolist() == [0, 2, 2, 3, 3]


@pytest.mark.parametrize("vocabulary", [5, 64, 300, 512, 1000])
def test_two_levels_agree_with_one_running_sum(vocabulary: int):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(200, vocabulary, generator=generator, dtype=torch.float64).float()
    uniforms = torch.rand(200, generator=generator, dtype=torch.float64)
    running = weights.double().cumsum(-1)
    plain = torch.searchsorted(running, uniforms[:, None] * running[:, -1:], right=True)
    assert torch.equal(invert_cumulative(weights, uniforms), plain.squeeze(1))


@given(
    weights=st.lists(st.sampled_from([0.0, 0.0, 1e-30, 1e-7, 1.0, 1e7]), min_size=2, max_size=70),
    uniform=st.floats(0.0, 1.0, exclude_max=True),
)
@settings(max_examples=200, deadline=None)
def test_a_token_of_weight_zero_is_never_drawn(weights: list[float], uniform: float):
    weights[0] = weights[0] or 1.0
    token = invert_cumulative(torch.tensor([weights]), torch.tensor([uniform], dtype=torch.float64))
    assert weights[int(token)] > 0


def test_logprobs_are_over_the_whole_vocabulary_at_the_temperature():
    logits = torch.tensor([[0.0, math.log(3.0), -50.0]])
    # temperature 1: probabilities 1/4 and 3/4; 0.5: logits 0 and log 9, so 1/10 and 9/10
    _, plain = draw_tokens(logits, torch.tensor([0.1]), sampling())
    assert plain.item() == pytest.approx(math.log(0.25))
    token, sharper = draw_tokens(logits, torch.tensor([0.2]), sampling(temperature=0.5))
    assert token.item() == 1
    assert sharper.item() == pytest.approx(math.log(0.9))


def test_temperature_zero_takes_the_likeliest_token_whatever_the_number():
    logits = torch.tensor([[0.0, math.log(3.0)]] * 2)
    tokens, logprobs = draw_tokens(logits, torch.tensor([0.0, 0.999]), sampling(temperature=0.0))
    assert tokens.tolist() == [1, 1]
    assert logprobs[0].item() == pytest.approx(math.log(0.75))


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass():
    weights = torch.tensor([[1.0, 5.0, 3.0, 1.0]])
    # sorted 0.5, 0.3, 0.1, 0.1: 0.5 reaches top_p 0.5 alone; 0.6 needs the second
    assert keep_likely(weights, top_p=0.5, top_k=0).tolist() == [[0.0, 5.0, 0.0, 0.0]]
    assert keep_likely(weights, top_p=0.6, top_k=0).tolist() == [[0.0, 5.0, 3.0, 0.0]]


def test_top_k_keeps_the_largest():
    weights = torch.tensor([[1.0, 5.0, 3.0, 2.0]])
    assert keep_likely(weights, top_p=1.0, top_k=2).tolist() == [[0.0, 5.0, 3.0, 0.0]]
    assert keep_likely(weights, top_p=1.0, top_k=9).tolist() == weights.tolist()


def test_draws_follow_the_probabilities():
    """Chi-square over 4 tokens, 20000 draws, fixed seed; 30 would be passed by chance in 1e-6."""
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    generator = torch.Generator().manual_seed(1)
    uniforms = torch.rand(20_000, generator=generator, dtype=torch.float64)
    tokens, _ = draw_tokens(probabilities.log().expand(20_000, -1), uniforms, sampling())
    expected = probabilities * 20_000
    chi_square = ((tokens.bincount(minlength=4) - expected) ** 2 / expected).sum().item()
    assert chi_square < 30
