"""The native engine's own promises, beyond the contract of all engines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from doubles_runs import toy_recipe
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rloop.algo.objective import Objective
from rloop.engines.base import Sampled, SampleRequest, TrainingSequence
from rloop.engines.native.engine import NativeEngine
from rloop.errors import EngineError
from rloop.recipe.config import OptimizerConfig, SamplingConfig

SETTINGS = SamplingConfig(max_completion_tokens=8)

EXAMPLES = [
    TrainingSequence(prompt_ids=(5, 9, 7), completion_ids=(6, 11, 2)),
    TrainingSequence(prompt_ids=(5, 9, 7), completion_ids=(8, 2)),
    TrainingSequence(prompt_ids=(4,), completion_ids=(3, 3, 12, 10, 2)),
]


@pytest.mark.parametrize("microbatch_tokens", [64, 1024])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_of_transformers_of_the_completions_tokens_alone(
    tmp_path: Path, microbatch_tokens: int, temperature: float
):
    recipe = toy_recipe(tmp_path, engine__microbatch_tokens=microbatch_tokens)
    engine = NativeEngine(recipe)
    base = engine.prepare(recipe.policy.path, tmp_path / "base", seed=0)
    found = engine.logprobs(EXAMPLES * 8, temperature=temperature)
    model: Any = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    for example, logprobs in zip(EXAMPLES * 8, found, strict=True):
        ids, start = [*example.prompt_ids, *example.completion_ids], len(example.prompt_ids)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        all_logprobs = (logits / temperature).log_softmax(-1)
        expected = [all_logprobs[i - 1, ids[i]].item() for i in range(start, len(ids))]
        assert logprobs == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4.0}])
def test_a_saved_training_in_bfloat16_continues_to_the_bit(tmp_path: Path, lora: Any):
    """Weights are rounded by chance, and a new process draws the same."""
    recipe = toy_recipe(tmp_path, engine__dtype="bfloat16", engine__lora=lora)
    engine = NativeEngine(recipe)
    base = engine.prepare(recipe.policy.path, tmp_path / "base", seed=0)
    engine.begin(OptimizerConfig(learning_rate=1e-3), seed=3)
    tune(engine)
    engine.save_state(tmp_path / "state")
    expected = tune(engine)
    straight = engine.save_policy(tmp_path / "straight", "next")
    other = NativeEngine(recipe)
    other.load(base)
    other.begin(OptimizerConfig(learning_rate=1e-3), seed=3, state=tmp_path / "state")
    assert tune(other) == expected
    policy = other.save_policy(tmp_path / "resumed", "next")
    weights, again, start = (
        load_file(path / "model.safetensors") for path in (straight.path, policy.path, base.path)
    )
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert any(not torch.equal(weights[name], start[name].bfloat16()) for name in weights)


def tune(engine: NativeEngine) -> list[float]:
    """Return the losses of two supervised updates."""
    objective = Objective(loss="sft")
    updates = [engine.update(EXAMPLES, objective, learning_rate=1e-3) for _ in range(2)]
    return [metrics["loss_mean"] for metrics in updates]


def test_copied_weights_are_what_it_holds_until_a_policy_is_loaded(tmp_path: Path):
    recipe = toy_recipe(tmp_path)
    engine, trained = NativeEngine(recipe), NativeEngine(recipe)
    base = engine.prepare(recipe.policy.path, tmp_path / "base", seed=0)
    other = trained.prepare(recipe.policy.path, tmp_path / "other", seed=1)
    own, theirs = (one.logprobs(EXAMPLES, temperature=1.0) for one in (engine, trained))
    assert own != theirs
    model: Any = AutoModelForCausalLM.from_pretrained(other.path, dtype=torch.float32)
    engine.copy_weights(model.state_dict())
    assert engine.logprobs(EXAMPLES, temperature=1.0) == theirs
    engine.load(base)
    assert engine.logprobs(EXAMPLES, temperature=1.0) == own


def test_attention_does_not_go_through_cudnn_which_plans_each_shape_anew(tmp_path: Path):
    torch.backends.cuda.enable_cudnn_sdp(enabled=True)
    NativeEngine(toy_recipe(tmp_path))
    assert not torch.backends.cuda.cudnn_sdp_enabled()


class StandIn:
    """Stands for a VllmModel on a GPU: completes every prompt with one token, and says when it
    sleeps.
    """

    events: ClassVar[list[str]] = []

    def __init__(self, *_: object, **__: object) -> None:
        self.events.append("start")

    def sample(
        self, _policy: object, requests: Sequence[SampleRequest], _settings: object
    ) -> Iterator[tuple[int, Sampled]]:
        self.events.append("sample")
        return ((index, Sampled((2,), (-0.5,), "stop")) for index in range(len(requests)))

    def sleep(self) -> None:
        self.events.append("sleep")

    def close(self) -> None:
        self.events.append("close")


REQUESTS = [SampleRequest((5, 9, 7), seed=1)]


def test_vllm_starts_once_and_sleeps_whenever_the_policy_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(StandIn, "events", [])
    monkeypatch.setattr("rloop.engines.native.engine.VllmModel", StandIn)
    monkeypatch.setattr("rloop.engines.native.engine.samples_with_vllm", lambda *_, **__: True)
    recipe = toy_recipe(tmp_path)
    engine = NativeEngine(recipe)
    engine.prepare(recipe.policy.path, tmp_path / "base", seed=0)
    engine.begin(OptimizerConfig(learning_rate=1e-3), seed=3)
    for _ in range(2):
        assert dict(engine.sample(REQUESTS, SETTINGS))[0].completion_ids == (2,)
        engine.update(EXAMPLES, Objective(loss="sft"), learning_rate=1e-3)
    engine.close()
    assert StandIn.events == ["start", "sample", "sleep", "sample", "sleep", "close"]


def test_a_model_that_vllm_does_not_take_is_sampled_natively_by_auto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_: object, **__: object) -> None:
        raise EngineError("vLLM cannot sample from it.")

    monkeypatch.setattr("rloop.engines.native.engine.VllmModel", refuse)
    monkeypatch.setattr("rloop.engines.native.engine.samples_with_vllm", lambda *_, **__: True)
    engine = NativeEngine(toy_recipe(tmp_path, explore__sampler="vllm"))
    engine.prepare("random:llama-2x64", tmp_path / "one", seed=0)
    with pytest.raises(EngineError, match="vLLM cannot sample from it"):
        engine.sample(REQUESTS, SETTINGS)
    engine = NativeEngine(toy_recipe(tmp_path, explore__sampler="auto"))
    engine.prepare("random:llama-2x64", tmp_path / "other", seed=0)
    found = dict(engine.sample(REQUESTS, SETTINGS))
    assert "explore.sampler=auto samples without vLLM: vLLM cannot sample from it." in caplog.text
    monkeypatch.undo()
    plain = NativeEngine(toy_recipe(tmp_path, explore__sampler="native"))
    plain.prepare("random:llama-2x64", tmp_path / "third", seed=0)
    assert dict(plain.sample(REQUESTS, SETTINGS)) == found
