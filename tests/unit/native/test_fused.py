"""The fused decode step and its kernels against PyTorch's and transformers' own."""

import logging
import math
from collections import Counter
from typing import Any

import pytest
import torch
from doubles_policies import tiny_policy
from torch.nn import functional as F

from rloop.config import SamplingConfig
from rloop.engines.native import kernels as built
from rloop.engines.native.cache import in_blocks
from rloop.engines.native.draw import draw_tokens
from rloop.engines.native.fused import FusedStep, lay_together, unsupported
from rloop.engines.native.kernels import LANES, Heads, Kernels, find_compiler, load_kernels
from rloop.engines.native.plain_step import PlainStep, choose_step, warn_once
from rloop.engines.native.policies import LoadedPolicy
from rloop.engines.native.prompts import Prompt
from rloop.engines.native.sampler import Request, Sampler
from rloop.types import Completion

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


@pytest.mark.parametrize("has_norms", [False, True])
def test_attend_writes_the_cache_and_attends_to_what_was_seen(kernels, dtype, has_norms):
    rows, groups, sharing, width, capacity = 3, 2, 3, 32, 48
    heads = groups * sharing
    positions = torch.tensor([0, 17, 38])
    qkv = noise(rows, (heads + 2 * groups) * width, dtype=dtype)
    keys, values = (noise(rows, groups, capacity, width, dtype=dtype) for _ in range(2))
    angles = torch.arange(capacity)[:, None] / 10.0 ** torch.arange(width // 2)
    cosines, sines = (f(angles.repeat(1, 2)).to(dtype) for f in (torch.cos, torch.sin))
    norms = [noise(width, dtype=dtype), noise(width + 1, dtype=dtype)[1:].clone()]
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

    expected_keys, expected_values = keys.double(), values.double()
    at = torch.arange(rows)
    expected_keys[at, :, positions] = rotate(key)
    expected_values[at, :, positions] = value
    expected = torch.stack(
        [
            F.scaled_dot_product_attention(
                rotate(query)[row, :, None],
                expected_keys[row, :, : p + 1].repeat_interleave(sharing, 0),
                expected_values[row, :, : p + 1].repeat_interleave(sharing, 0),
            ).flatten()
            for row, p in enumerate(positions.tolist())
        ]
    )
    out, scores = torch.empty(rows, heads * width, dtype=dtype), torch.empty(rows, heads, 48)
    how = Heads(
        cosines_PK=cosines,
        sines_PK=sines,
        query_norm_K=norms[0] if has_norms else None,
        key_norm_K=norms[1] if has_norms else None,
        scaling=width**-0.5,
        eps=1e-6,
    )
    blocked = torch.stack([in_blocks(row, LANES) for row in keys]).contiguous()
    kernels.attend(qkv, positions, how, (blocked, values), scores, out)
    keys = blocked.transpose(3, 4).flatten(2, 3)
    tolerance = 5 * TOLERANCE[dtype]
    torch.testing.assert_close(keys.double(), expected_keys, rtol=tolerance, atol=tolerance)
    assert torch.equal(values.double(), expected_values)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


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


def sample(policy: LoadedPolicy, *, is_fused: bool) -> list[Completion]:
    requests = [
        Request(Prompt(str(n), ids), seed=100 * n + member)
        for n, ids in enumerate([(5, 9, 31), (7,), (11, 12, 13, 14, 15, 16, 17), (40, 41)])
        for member in range(5)
    ]
    sampler = Sampler(policy, max_batch=6, prefill_tokens=16, is_fused=is_fused)
    found = dict(sampler.sample(requests, settings()))
    return [found[index] for index in range(len(requests))]


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

    def gap(completions: list[Completion]) -> float:
        gaps = []
        for c in completions:
            with torch.inference_mode():
                logits = exact(torch.tensor([c.prompt_ids + c.completion_ids])).logits[0]
            begin = len(c.prompt_ids) - 1
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
