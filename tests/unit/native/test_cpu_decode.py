"""The fused decode step and its kernels against PyTorch's and transformers' own."""

import logging
import math
import platform
from collections import Counter
from typing import Any

import pytest
import torch
from doubles_policies import tiny_policy
from torch.nn import functional as F

from rloop.engines.base import Sampled, SampleRequest
from rloop.engines.native.cpu import kernels as built
from rloop.engines.native.cpu.cache import PagedCache, to_pages
from rloop.engines.native.cpu.decode import FusedStep, lay_together, unsupported
from rloop.engines.native.cpu.kernels import LANES, Heads, Kernels, find_compiler, load_kernels
from rloop.engines.native.decode import PlainStep, Prefilled
from rloop.engines.native.draw import draw_tokens
from rloop.engines.native.sampler import Sampler, choose_step, warn_once
from rloop.policies.checkpoint import LoadedPolicy
from rloop.recipe.config import SamplingConfig

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler here")
FAMILIES = ["llama", "mistral", "qwen2", "qwen3"]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2}


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture
def kernels(dtype: torch.dtype) -> Kernels:
    if find_compiler() is None:
        pytest.skip("no C compiler here")
    return load_kernels(dtype, 32, 3)


def noise(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(*shape, generator=generator) * scale).to(dtype)


def settings(**changes: float) -> SamplingConfig:
    return SamplingConfig.model_validate({"max_completion_tokens": 12, **changes})


def test_add_norm_is_a_residual_sum_and_a_root_mean_square_norm(kernels, dtype):
    residual, delta, weight = noise(5, 48, dtype=dtype), noise(5, 48, dtype=dtype), noise(48)
    expected_sum = residual + delta
    expected = F.rms_norm(expected_sum.float(), (48,), weight.to(dtype).float(), eps=1e-5)
    normed = torch.empty_like(residual)
    kernels.add_norm(residual, delta, weight.to(dtype), normed, 1e-5)
    assert torch.equal(residual, expected_sum)
    torch.testing.assert_close(normed.float(), expected, rtol=TOLERANCE[dtype], atol=1e-5)


def test_silu_mul_is_the_gate_times_the_rest_at_large_numbers_too(kernels, dtype):
    gate_up = noise(4, 64, dtype=dtype, scale=40.0)
    out = torch.empty(4, 32, dtype=dtype)
    kernels.silu_mul(gate_up, out)
    gate, up = gate_up.double().chunk(2, dim=-1)
    torch.testing.assert_close(
        out.double(), F.silu(gate) * up, rtol=2 * TOLERANCE[dtype], atol=1e-5
    )


def from_pages(pages: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values [.., T, K] of pages [.., T / LANES, 2, LANES K]."""
    pair = 2 if pages.dtype == torch.bfloat16 else 1
    keys, values = pages.unbind(-2)
    keys = keys.unflatten(-1, (width // pair, LANES, pair)).transpose(-3, -2).flatten(-2)
    values = values.unflatten(-1, (LANES // pair, width, pair)).transpose(-2, -1).flatten(-3, -2)
    return keys.flatten(-3, -2), values.flatten(-3, -2)


def test_a_page_holds_keys_by_dimension_and_values_by_position():
    keys, values = noise(2, 20, 32), noise(2, 20, 33)[..., 1:]
    pages = to_pages(keys, values)
    assert pages.shape == (2, 2, 2, LANES * 32)
    # Position 17 is the second of the second page.
    assert torch.equal(pages[1, 1, 0].view(32, LANES)[:, 1], keys[1, 17])
    assert torch.equal(pages[1, 1, 1].view(LANES, 32)[1], values[1, 17])
    assert pages[:, 1, 0].view(2, 32, LANES)[:, :, 4:].count_nonzero() == 0
    halves = to_pages(keys.bfloat16(), values.bfloat16())
    # Side by side stand two dimensions of a key, and the values of two positions.
    assert torch.equal(halves[1, 1, 0].view(16, LANES, 2)[3, 1], keys[1, 17, 6:8].bfloat16())
    assert torch.equal(halves[1, 1, 1].view(8, 32, 2)[0, 5], values[1, 16:18, 5].bfloat16())


def prefilled(ids: range, dtype: torch.dtype) -> Prefilled:
    """Return noise as the states of a prompt, 2 layers of 2 heads of width 32."""
    keys, values = (
        [noise(2, len(ids), extra + 32, dtype=dtype)[..., extra:].contiguous() for extra in extras]
        for extras in ((0, 1), (2, 3))
    )
    return Prefilled(tuple(ids), keys, values, noise(7))


LENGTHS = {1: 1, 2: 16, 3: 37}
"""Of three prompts: within a page, a whole page, several."""


@pytest.mark.parametrize("has_norms", [False, True])
def test_attend_writes_the_cache_and_attends_to_what_was_seen(kernels, dtype, has_norms):
    check_attend(kernels, dtype, has_norms=has_norms)


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have no such option")
def test_attend_does_the_same_without_dot_products_of_bfloat16(monkeypatch):
    monkeypatch.setattr(built, "FLAGS", (*built.FLAGS, "-mno-avx512bf16"))
    portable = load_kernels.__wrapped__(torch.bfloat16, 32, 3)
    check_attend(portable, torch.bfloat16, has_norms=True)


def check_attend(kernels: Kernels, dtype: torch.dtype, *, has_norms: bool) -> None:
    groups, sharing, width, layer = 2, 3, 32, 1
    heads = groups * sharing
    prompts = {n: prefilled(range(n, n + length), dtype) for n, length in LENGTHS.items()}
    of_rows = [3, 1, 3, 2, 3, *[2] * 11, 3]
    rows = len(of_rows)
    cache = PagedCache(rows, 40)
    for n, prompt in prompts.items():
        cache.place([row for row, of_row in enumerate(of_rows) if of_row == n], prompt)
    after = torch.tensor([0, 3, 33, 16, 15, *range(11), 1])  # how many follow the prompt
    lengths = torch.tensor([LENGTHS[n] for n in of_rows])
    positions = lengths + after
    cache.begin_step(positions)
    angles = torch.arange(80)[:, None] / 10.0 ** torch.arange(width // 2)
    cosines, sines = (f(angles.repeat(1, 2)).to(dtype) for f in (torch.cos, torch.sin))
    norms = [noise(width, dtype=dtype), noise(width + 1, dtype=dtype)[1:].clone()]
    how = Heads(
        cosines_PK=cosines,
        sines_PK=sines,
        query_norm_K=norms[0] if has_norms else None,
        key_norm_K=norms[1] if has_norms else None,
        scaling=width**-0.5,
        eps=1e-6,
    )
    states = cache.layer(layer)
    states.own.fill_(math.nan)
    earlier = noise(2, rows, groups, 33, width, dtype=dtype)
    own = states.own.shape[2] * LANES
    filled = torch.full((2, rows, groups, own, width), math.nan, dtype=dtype)
    for row, count in enumerate(after.tolist()):
        filled[:, row, :, :count] = earlier[:, row, :, :count]
    states.own.copy_(to_pages(*filled))
    qkv = noise(rows, (heads + 2 * groups) * width, dtype=dtype)
    out, scores = torch.empty(rows, heads * width, dtype=dtype), torch.empty(rows, heads, 96)
    kernels.attend(qkv, positions, how, states, scores, out)

    query, key, value = (
        part.unflatten(1, (-1, width)).double()
        for part in qkv.split([heads * width, groups * width, groups * width], dim=1)
    )
    if has_norms:
        query, key = (
            F.rms_norm(states, (width,), norm.double(), eps=1e-6)
            for states, norm in zip((query, key), norms, strict=True)
        )

    def rotate(states: torch.Tensor) -> torch.Tensor:
        first, second = states.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return states * cosines[positions, None].double() + turned * sines[positions, None].double()

    tolerance = 5 * TOLERANCE[dtype]
    keys, values = from_pages(states.own, width)
    for row, (count, n) in enumerate(zip(after.tolist(), of_rows, strict=True)):
        written = rotate(key)[row], value[row]
        torch.testing.assert_close(
            keys[row, :, count].double(), written[0], rtol=tolerance, atol=tolerance
        )
        assert torch.equal(values[row, :, count].double(), written[1])
        seen_keys, seen_values = (
            torch.cat([prompt[layer].double(), before[row, :, :count].double(), new[:, None]], 1)
            for prompt, before, new in zip(
                (prompts[n].keys, prompts[n].values), earlier, written, strict=True
            )
        )
        expected = F.scaled_dot_product_attention(
            rotate(query)[row, :, None],
            seen_keys.repeat_interleave(sharing, 0),
            seen_values.repeat_interleave(sharing, 0),
        ).flatten()
        torch.testing.assert_close(out[row].double(), expected, rtol=tolerance, atol=tolerance)


def test_rows_of_a_prompt_share_its_states_until_the_last_leaves():
    cache = PagedCache(12, 8)
    cache.place(range(10), prefilled(range(20), torch.float32))
    cache.place([10], prefilled(range(3), torch.float32))
    cache.place([11], prefilled(range(20), torch.float32))
    cache.begin_step(torch.tensor([20] * 10 + [3, 20]))
    states = cache.layer(0)
    address, other = states.families_F4[0, 2], states.families_F4[2, 2]
    # Eleven rows of the first prompt are two families; states exist once.
    assert states.families_F4.tolist() == [
        [0, 8, address, 20],
        [8, 3, address, 20],
        [11, 1, other, 3],
    ]
    assert states.rows_R.tolist() == [*range(10), 11, 10]
    states.own[10] = 5.0
    cache.begin_step(torch.tensor([20] * 2 + [0] * 8 + [3, 20]))  # rows 2 to 9 have finished
    assert cache.layer(0).families_F4.tolist() == [[0, 3, address, 20], [3, 1, other, 3]]
    assert cache.layer(0).rows_R.tolist() == [0, 1, 11, 10]
    cache.keep([10, 1])
    cache.begin_step(torch.tensor([4, 21]))
    states = cache.layer(0)
    assert states.families_F4.tolist() == [[0, 1, other, 3], [1, 1, address, 20]]
    assert states.own[0].eq(5).all()


def test_capacity_grows_with_the_longest_row_and_keeps_what_is_there():
    cache = PagedCache(2, 70)
    cache.place([0, 1], prefilled(range(5), torch.float32))
    cache.begin_step(torch.tensor([5, 0]))
    assert cache.layer(1).own.shape == (2, 2, 2, 2, LANES * 32)
    cache.layer(1).own.copy_(filled := noise(2, 2, 2, 2, LANES * 32))
    cache.begin_step(torch.tensor([5 + 69, 0]))
    # max(70 + 31, 48) positions, but no more than 70, are 5 pages.
    assert cache.layer(1).own.shape == (2, 2, 5, 2, LANES * 32)
    assert torch.equal(cache.layer(1).own[:, :, :2], filled)


@pytest.mark.parametrize("vocabulary", [7, 64, 300, 5000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_draw_takes_the_plain_version_s_tokens(kernels, dtype, vocabulary, temperature):
    logits = noise(200, vocabulary, dtype=dtype, scale=3.0)
    uniforms = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tokens, logprobs = kernels.draw(logits, uniforms, temperature)
    plain_tokens, _ = draw_tokens(logits, uniforms, settings(temperature=temperature))
    # Two orders of summation part at a boundary between tokens once in about a million.
    assert (tokens != plain_tokens).sum() <= 1
    expected = (logits.double() / temperature).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), expected, rtol=1e-5, atol=1e-5)


def test_drawn_tokens_have_the_distribution_s_frequencies(kernels):
    dtype = torch.float32 if kernels is load_kernels(torch.float32, 32, 3) else torch.bfloat16
    logits = torch.tensor([0.0, math.log(2), math.log(4), -math.inf, math.log(8)]).to(dtype)
    count = 15_000
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    tokens, _ = kernels.draw(logits.expand(count, -1).contiguous(), uniforms, 1.0)
    found = Counter(tokens.tolist())
    assert found[3] == 0
    rounding = 1e-3 if dtype == torch.float32 else 5e-3
    weights = {0: 1, 1: 2, 2: 4, 4: 8}
    for token, weight in weights.items():
        assert found[token] / count == pytest.approx(weight / 15, abs=rounding)


def test_broken_logits_give_a_token_and_a_broken_log_probability(kernels, dtype):
    logits = torch.full((1, 40), math.nan, dtype=dtype)
    tokens, logprobs = kernels.draw(logits, torch.tensor([0.5], dtype=torch.float64), 1.0)
    assert 0 <= int(tokens) < 40
    assert math.isnan(float(logprobs))


REQUESTS = [
    SampleRequest(ids, seed=100 * n + member)
    for n, ids in enumerate([(5, 9, 31), (7,), (11, 12, 13, 14, 15, 16, 17), (40, 41)])
    for member in range(5)
]


def sample(policy: LoadedPolicy, *, is_fused: bool) -> list[Sampled]:
    sampler = Sampler(policy, max_batch=6, prefill_tokens=16, is_fused=is_fused)
    found = dict(sampler.sample(REQUESTS, settings()))
    return [found[index] for index in range(len(REQUESTS))]


@needs_compiler
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_sampling_writes_what_plain_sampling_writes(family):
    policy = tiny_policy(family, head_width=16)
    assert isinstance(choose_step(policy, is_fused=True), FusedStep)
    assert isinstance(choose_step(policy, is_fused=False), PlainStep)
    plain, fused = (sample(policy, is_fused=is_fused) for is_fused in (False, True))
    assert [c.completion_ids for c in fused] == [c.completion_ids for c in plain]
    for one, other in zip(fused, plain, strict=True):
        assert one.behavior_logprobs == pytest.approx(other.behavior_logprobs, abs=2e-5)


@needs_compiler
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_log_probabilities_are_as_near_to_float32_as_plain_ones(family):
    """In bfloat16 both round; the fused step must not be further off than transformers is."""
    policy = tiny_policy(family, head_width=16, dtype=torch.bfloat16)
    exact = tiny_policy(family, head_width=16, dtype=torch.bfloat16).model.float()

    def gap(completions: list[Sampled]) -> float:
        gaps = []
        for request, c in zip(REQUESTS, completions, strict=True):
            with torch.inference_mode():
                logits = exact(torch.tensor([request.prompt_ids + c.completion_ids])).logits[0]
            begin = len(request.prompt_ids) - 1
            at = torch.tensor(c.completion_ids)[:, None]
            logprobs = logits.log_softmax(-1)[begin:-1].gather(1, at)[:, 0]
            gaps += (logprobs - torch.tensor(c.behavior_logprobs)).abs().tolist()
        return sum(gaps) / len(gaps)

    assert gap(sample(policy, is_fused=True)) < 1.3 * gap(sample(policy, is_fused=False))


@needs_compiler
def test_weights_lie_together_and_updates_in_place_are_seen():
    policy = tiny_policy("qwen2", head_width=16)
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    first = sample(policy, is_fused=True)
    after = policy.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    attention: Any = policy.model.get_submodule("model.layers.0.self_attn")
    linears = [attention.q_proj, attention.k_proj, attention.v_proj]
    addresses = [linear.weight.data_ptr() for linear in linears]
    again = lay_together(linears)
    assert [linear.weight.data_ptr() for linear in linears] == addresses
    assert again.weight_DN.data_ptr() == addresses[0]
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.3)
    changed = sample(policy, is_fused=True)
    assert [c.completion_ids for c in changed] == [
        c.completion_ids for c in sample(policy, is_fused=False)
    ]
    assert [c.completion_ids for c in changed] != [c.completion_ids for c in first]


@needs_compiler
def test_a_model_that_has_sampled_can_still_learn():
    policy = tiny_policy(head_width=16)
    sample(policy, is_fused=True)
    policy.model(torch.tensor([[5, 9, 31]])).logits.sum().backward()
    assert all(p.grad is not None for p in policy.model.parameters())


def test_what_cannot_be_fused_is_told_once_and_sampled_plainly(caplog):
    warn_once.cache_clear()
    policy = tiny_policy(head_width=8)
    assert "multiples of 16" in str(unsupported(policy.model))
    with caplog.at_level(logging.WARNING):
        steps = [choose_step(policy, is_fused=True) for _ in range(3)]
    assert all(isinstance(step, PlainStep) for step in steps)
    assert [record.message for record in caplog.records] == [
        "Sampling is slower than it could be, without fused kernels: the model has widths "
        "[8, 32, 48] that are no multiples of 16."
    ]


@needs_compiler
def test_no_compiler_and_a_failing_one_are_told(monkeypatch, tmp_path, caplog):
    policy = tiny_policy(head_width=16)
    monkeypatch.setenv("RLOOP_CACHE", str(tmp_path))
    for compiler, said in ((None, "there is no C compiler"), ("/bin/false", "could not build")):
        load_kernels.cache_clear()
        warn_once.cache_clear()
        monkeypatch.setattr(built, "find_compiler", lambda compiler=compiler: compiler)
        with caplog.at_level(logging.WARNING):
            assert isinstance(choose_step(policy, is_fused=True), PlainStep)
        assert said in caplog.records[-1].message
    assert list((tmp_path / "kernels").iterdir()) == []


@needs_compiler
def test_a_compiler_without_openmp_is_told_of(monkeypatch, tmp_path, caplog):
    """As Apple's clang refuses the option."""
    compiler = tmp_path / "cc"
    refuses = 'for a; do [ "$a" = -fopenmp ] && exit 1; done'
    compiler.write_text(f'#!/bin/sh\n{refuses}\nexec {find_compiler()} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("RLOOP_CACHE", str(tmp_path))
    for path, is_parallel in ((str(compiler), False), (find_compiler(), True)):
        load_kernels.cache_clear()
        caplog.clear()
        monkeypatch.setattr(built, "find_compiler", lambda path=path: path)
        with caplog.at_level(logging.WARNING):
            assert load_kernels(torch.float32, 16, 2).is_parallel == is_parallel
        assert any("Sampling uses one core" in r.message for r in caplog.records) != is_parallel
    load_kernels.cache_clear()


@needs_compiler
def test_a_build_is_kept_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RLOOP_CACHE", str(tmp_path))
    load_kernels.cache_clear()
    load_kernels(torch.float32, 16, 2)
    (library,) = (tmp_path / "kernels").iterdir()
    written = library.stat().st_mtime_ns
    load_kernels.cache_clear()
    load_kernels(torch.float32, 16, 2)
    assert library.stat().st_mtime_ns == written
    load_kernels.cache_clear()
