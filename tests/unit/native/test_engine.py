"""The native engine's own promises, beyond the contract of all engines."""

from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_policies import InstantVerify
from doubles_runs import toy_recipe
from transformers import AutoModelForCausalLM

from rloop.engines.native.engine import NativeEngine
from rloop.types import Example

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
