"""KL(base, policy) as a run of the native engine logs it, against a calculation by hand."""

from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_runs import begin, toy_recipe, trajectories, with_mixed_groups
from transformers import AutoModelForCausalLM

from rloop.engines.registry import build_engine
from rloop.observe.run_log import read_metrics

PLAIN_RL: dict[str, Any] = {
    "iterations": 1,
    "expert": None,
    "finetune": None,
}


def last_divergence(run_dir: Path) -> float:
    line = read_metrics(run_dir)[-1]
    assert line["policy"] == "explored-001"
    low, value, high = (line[f"evaluate/kl_base_mean{end}"] for end in ("_low", "", "_high"))
    assert low <= value <= high
    return float(value)


def token_logprobs(folder: Path, row: dict[str, Any], temperature: float) -> list[float]:
    """Return what transformers gives the completion's tokens, one sequence at a time."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids, start = row["prompt_ids"] + row["completion_ids"], len(row["prompt_ids"])
    with torch.no_grad():
        all_logprobs = (model(torch.tensor([ids])).logits[0] / temperature).log_softmax(-1)
    return [all_logprobs[i - 1, ids[i]].item() for i in range(start, len(ids))]


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_the_divergence_of_an_explored_policy_by_hand(tmp_path: Path, temperature: float):
    sampling = {"max_completion_tokens": 16, "temperature": temperature}
    recipe = with_mixed_groups(toy_recipe(tmp_path, explore__sampling=sampling, **PLAIN_RL))
    code, run_dir = begin(recipe, tmp_path, build_engine)
    assert code == 0
    # 3 prompts x 4 members: all of the first step is in the probe.
    rows = trajectories(
        run_dir, "select * from trajectories where phase = 'explore' and step = 1 order by member"
    )
    assert len(rows) == 12
    numbers = []
    for row in rows:
        base = token_logprobs(run_dir / "policies/base", row, temperature)
        explored = token_logprobs(run_dir / "policies/explored-001", row, temperature)
        log_ratios = [a - b for a, b in zip(explored, base, strict=True)]
        numbers += [exp(log_ratio) - 1 - log_ratio for log_ratio in log_ratios]
    found = last_divergence(run_dir)
    assert found == pytest.approx(sum(numbers) / len(numbers), rel=1e-3)
    assert found > 1e-4  # the policy moved: the comparison means something


def test_a_frozen_policy_has_not_moved(tmp_path: Path):
    frozen = toy_recipe(tmp_path, explore__optimizer={"learning_rate": 0.0}, **PLAIN_RL)
    code, run_dir = begin(with_mixed_groups(frozen), tmp_path, build_engine)
    assert code == 0
    # Sampler and learner differ by the order of float32 sums, about 1e-6; squared, nothing.
    assert last_divergence(run_dir) < 1e-9
