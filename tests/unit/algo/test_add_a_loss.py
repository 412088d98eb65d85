"""What docs/how-to/add-a-loss.md says, done: its functions take the names it gives them."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import torch
from doubles_records import group_at, place_at

from rloop.algo import advantages, losses
from rloop.algo.objective import Objective
from rloop.recipe.config import ExploreConfig

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-loss.md"
TABLES = {"advantage": advantages.ESTIMATORS, "loss": losses.LOSSES}


def from_page(module: ModuleType, name: str) -> Callable[..., Any]:
    """Return the function that the page puts into the module's table under the name."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (line,) = [block for block in blocks if f'"{name}": ' in block]
    function = line.partition(": ")[2].strip().rstrip(",")
    (source,) = [block for block in blocks if block.startswith(f"def {function}(")]
    written = dict(vars(module))
    exec(source, written)
    found: Callable[..., Any] = written[function]
    return found


@pytest.mark.parametrize("key", TABLES)
def test_the_names_of_the_config_are_those_of_the_table(key: str):
    names = get_args(ExploreConfig.model_fields[key].annotation)
    assert set(names) == set(TABLES[key]) - {"sft"}


def test_the_pages_advantage_shapes_a_group(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(
        advantages.ESTIMATORS,
        "maxrl",
        from_page(advantages, "maxrl"),
    )
    config = ExploreConfig.model_validate(
        {
            "steps": 1,
            "prompts_per_step": 1,
            "group_size": 4,
            "sampling": {"max_completion_tokens": 10},
            "optimizer": {"learning_rate": 1e-3},
            "advantage": "maxrl",
        }
    )
    members = [("1", True), ("2", False), ("3", False), ("4", False)]
    group = group_at(place_at(), completions=members)
    # mean 1/4: (1 - 1/4) / (1/4) = 3, (0 - 1/4) / (1/4) = -1
    assert advantages.member_advantages(group, config) == pytest.approx([3.0, -1.0, -1.0, -1.0])


def test_the_pages_loss_weighs_every_completion_alike(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(
        losses.LOSSES,
        "grpo",
        from_page(losses, "grpo"),
    )
    policy_N = torch.tensor([1.5, 0.5, 1.0]).log().requires_grad_()
    batch = losses.TokenBatch(
        policy_logprobs_N=policy_N,
        behavior_logprobs_N=torch.zeros(3),
        reference_logprobs_N=None,
        advantages_N=torch.tensor([1.0, 1.0, -2.0]),
        weights_N=torch.ones(3),
        lengths_B=[2, 1],
    )
    objective = Objective(loss="grpo", clip_low=0.2, clip_high=0.3)
    counts = losses.UpdateCounts(num_tokens=9, num_sequences=4)
    output = losses.compute_loss(objective, batch, counts)
    # two tokens: -(1.3 + 0.5) / 2 = -0.9; one token: 2.0; (-0.9 + 2.0) / 4 sequences
    assert output.loss.item() == pytest.approx(0.275)
    assert output.is_clipped_N.tolist() == [True, False, False]
    (grad_N,) = torch.autograd.grad(output.loss, [policy_N])
    # the clipped token has none; -0.5 / 2 / 4; 2 / 4
    assert grad_N.tolist() == pytest.approx([0.0, -0.0625, 0.5])
