"""The sampler against a plain loop, and its promises about streams, order and stopping."""

import logging
from collections.abc import Sequence

import pytest
import torch
from doubles_policies import EOS, tiny_policy

from rloop.engines.base import Sampled, SampleRequest
from rloop.engines.native.decode import fitting_rows, token_bytes
from rloop.engines.native.sampler import Batch, Row, Sampler, Stream, warn_once
from rloop.policies.checkpoint import LoadedPolicy
from rloop.recipe.config import SamplingConfig

PROMPTS = [(5, 9, 31), (7,), (11, 12, 13, 14, 15, 16, 17), (40, 41)]


def sampling(**changes: float) -> SamplingConfig:
    return SamplingConfig.model_validate({"max_completion_tokens": 12, **changes})


def requests(group_size: int = 5) -> list[SampleRequest]:
    return [
        SampleRequest(prompt, seed=100 * number + member)
        for number, prompt in enumerate(PROMPTS)
        for member in range(group_size)
    ]


def draw(policy: LoadedPolicy, wanted: list[SampleRequest], max_batch: int = 6) -> list[Sampled]:
    sampler = Sampler(policy, max_batch=max_batch, prefill_tokens=16)
    found = dict(sampler.sample(wanted, sampling()))
    return [found[index] for index in range(len(wanted))]


@torch.inference_mode()
def plain_completion(policy: LoadedPolicy, request: SampleRequest, max_tokens: int) -> list[int]:
    """Sample one completion by a whole forward pass a token: no cache, no batch."""
    ids, stream = list(request.prompt_ids), Stream(request.seed)
    for position in range(max_tokens):
        logits = policy.model(torch.tensor([ids])).logits[0, -1].double()
        running = logits.softmax(-1).cumsum(-1)
        number = torch.tensor(stream.number(position), dtype=torch.float64)
        ids.append(int(torch.searchsorted(running, number, right=True)))
        if ids[-1] == EOS:
            break
    return ids[len(request.prompt_ids) :]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_batched_and_cached_sampling_equals_a_plain_loop(family: str):
    policy = tiny_policy(family)
    completions = draw(policy, requests())
    plain = [plain_completion(policy, request, 12) for request in requests()]
    assert [list(c.completion_ids) for c in completions] == plain
    assert {c.finish_reason for c in completions} == {"stop", "length"}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_stored_logprobs_are_those_of_a_plain_forward_pass(family: str):
    policy = tiny_policy(family)
    wanted = requests(2)
    for request, completion in zip(wanted, draw(policy, wanted), strict=True):
        ids = torch.tensor([request.prompt_ids + completion.completion_ids])
        with torch.inference_mode():
            logprobs = policy.model(ids).logits[0].float().log_softmax(-1)
        begin = len(request.prompt_ids) - 1
        rows = logprobs[begin:-1].gather(1, ids[0, begin + 1 :, None]).squeeze(1)
        assert rows.tolist() == pytest.approx(completion.behavior_logprobs, abs=1e-5)


def test_a_trajectory_does_not_depend_on_its_neighbours_or_the_batch_size():
    policy = tiny_policy()
    together = [c.completion_ids for c in draw(policy, requests(), max_batch=20)]
    assert [c.completion_ids for c in draw(policy, requests(), max_batch=3)] == together
    assert draw(policy, requests()[7:8])[0].completion_ids == together[7]


def test_every_request_is_answered_once_and_stops_say_so():
    policy = tiny_policy()
    sampler = Sampler(policy, max_batch=4, prefill_tokens=8)
    found = list(sampler.sample(requests(), sampling()))
    assert sorted(index for index, _ in found) == list(range(20))
    for _, completion in found:
        stopped = completion.finish_reason == "stop"
        assert stopped == (completion.completion_ids[-1] == EOS)
        assert EOS not in completion.completion_ids[:-1]
        assert stopped or len(completion.completion_ids) == 12
        assert len(completion.behavior_logprobs) == len(completion.completion_ids)


def test_one_token_completions_and_no_requests_work():
    policy = tiny_policy()
    sampler = Sampler(policy, max_batch=4, prefill_tokens=8)
    found = list(sampler.sample(requests(), sampling(max_completion_tokens=1)))
    assert [len(c.completion_ids) for _, c in found] == [1] * 20
    assert list(sampler.sample([], sampling())) == []


def test_a_prompt_is_prefilled_once_for_all_its_completions():
    policy = tiny_policy()
    seen: list[tuple[int, int]] = []
    decoder = policy.decoder
    handle = decoder.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    draw(policy, requests(), max_batch=3)
    handle.remove()
    prefilled = sum(rows for rows, width in seen if width > 1)
    # PROMPTS has three prompts of more than one token; each goes through the model once.
    assert prefilled <= len(PROMPTS)


def test_rows_are_as_many_as_the_free_memory_of_a_gpu_holds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Keys and values of 2 layers x 2 heads x 8 numbers x 4 bytes take 256 bytes a token; a row
    of 7 + 12 tokens 4,864. Four fifths of 20,000 bytes hold 3 of them.
    """
    policy, wanted = tiny_policy(), requests()
    assert token_bytes(policy.model) == 256
    expected = draw(policy, wanted, max_batch=3)
    monkeypatch.setattr("rloop.engines.native.decode.free_bytes", lambda _: 20_000)
    assert fitting_rows(policy.model, 19) == 3
    peak = 0

    def counted(self: Batch, rows: Sequence[Row | None]) -> torch.Tensor:
        nonlocal peak
        peak = max(peak, len(rows))
        return decode(self, rows)

    decode = Batch._decode
    monkeypatch.setattr(Batch, "_decode", counted)
    warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="rloop"):
        assert draw(policy, wanted, max_batch=6) == expected
    assert peak == 3
    assert "does not hold engine.max_batch=6 completions" in caplog.messages[-1]
