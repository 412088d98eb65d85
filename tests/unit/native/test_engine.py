"""The native engine's own promises, beyond the contract of all engines."""

from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_policies import InstantVerify, make_problem
from doubles_runs import toy_recipe
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rloop.engines.base import ExploreStep
from rloop.engines.native.engine import NativeEngine
from rloop.types import Example, Place

EXAMPLES = [
    Example(problem_id="toy/0", prompt_ids=(5, 9, 7), completion_ids=(6, 11, 2)),
    Example(problem_id="toy/0", prompt_ids=(5, 9, 7), completion_ids=(8, 2)),
    Example(problem_id="toy/1", prompt_ids=(4,), completion_ids=(3, 3, 12, 10, 2)),
]


@pytest.mark.parametrize("microbatch_tokens", [64, 1024])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_of_transformers_of_the_completions_tokens_alone(
    tmp_path: Path, microbatch_tokens: int, temperature: float
):
    recipe = toy_recipe(tmp_path, engine__microbatch_tokens=microbatch_tokens)
    engine = NativeEngine(recipe, InstantVerify())
    base = engine.prepare(recipe.policy.path, tmp_path / "base", seed=0)
    found = engine.logprobs(base, EXAMPLES * 8, temperature=temperature)
    model: Any = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    for example, logprobs in zip(EXAMPLES * 8, found, strict=True):
        ids, start = [*example.prompt_ids, *example.completion_ids], len(example.prompt_ids)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        all_logprobs = (logits / temperature).log_softmax(-1)
        expected = [all_logprobs[i - 1, ids[i]].item() for i in range(start, len(ids))]
        assert logprobs == pytest.approx(expected, abs=1e-5)


PLACE = Place(run="toy", seed=0, iteration=1, phase="explore", policy="explored-001")


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4.0}])
def test_a_saved_exploration_in_bfloat16_continues_to_the_bit(tmp_path: Path, lora: Any):
    """Weights are rounded by chance, and a new process draws the same."""
    recipe = toy_recipe(tmp_path, engine__dtype="bfloat16", engine__lora=lora)
    problems = [make_problem(number, answer="-") for number in range(6)]
    engine = NativeEngine(recipe, InstantVerify())
    base = engine.prepare(recipe.policy.path, tmp_path / "base", seed=0)
    steps = engine.explore(base, problems, PLACE, num_steps=4)
    next(steps)
    next(steps)
    engine.save_state(tmp_path / "state")
    expected = [ids_of(step) for step in steps]
    straight = engine.save_policy(tmp_path / "straight", "explored-001")
    other = NativeEngine(recipe, InstantVerify())
    other.prepare(recipe.policy.path, tmp_path / "base", seed=0)
    resumed = other.explore(base, problems, PLACE, num_steps=4, resume_from=tmp_path / "state")
    assert [ids_of(step) for step in resumed] == expected
    policy = other.save_policy(tmp_path / "resumed", "explored-001")
    weights, again, start = (
        load_file(path / "model.safetensors") for path in (straight.path, policy.path, base.path)
    )
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert any(not torch.equal(weights[name], start[name].bfloat16()) for name in weights)


def ids_of(step: ExploreStep) -> list[tuple[int, ...]]:
    return [t.completion.completion_ids for group in step.groups for t in group.trajectories]


def test_attention_does_not_go_through_cudnn_which_plans_each_shape_anew(tmp_path: Path):
    torch.backends.cuda.enable_cudnn_sdp(enabled=True)
    NativeEngine(toy_recipe(tmp_path), InstantVerify())
    assert not torch.backends.cuda.cudnn_sdp_enabled()
