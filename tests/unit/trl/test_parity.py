"""TRL and the native engine agree: the same prompts, the same gradient, the same fine-tuning."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs TRL (extra trl)")

import torch
from doubles_models import tiny_model
from doubles_policies import InstantVerify, make_problem
from doubles_runs import toy_recipe
from doubles_trl import on_trl

from rloop.algo.advantages import group_advantages, has_signal
from rloop.algo.losses import Objective
from rloop.config import Recipe
from rloop.config_engine import LoraConfig
from rloop.engines.base import Engine, ExploreStep
from rloop.engines.native import attention
from rloop.engines.native.engine import NativeEngine
from rloop.engines.native.learner import Learner, token_budget
from rloop.engines.native.microbatch import TrainingSequence
from rloop.engines.native.policies import load_policy
from rloop.engines.registry import build_engine
from rloop.engines.trl.inference import plain_state
from rloop.engines.trl.training import peft_config
from rloop.types import Example, Group, Place, PolicyRef

PLACE = Place(run="toy", seed=0, iteration=1, phase="explore", policy="explored-001")
TUNE = Place(run="toy", seed=0, iteration=1, phase="finetune", policy="iter-001")
HELD_OUT = Place(run="toy", seed=0, iteration=1, phase="evaluate", policy="iter-001")
# A random policy writes a 1 often enough: groups with and without a signal.
PROBLEMS = [make_problem(number, answer="1") for number in range(6)]


class Engines:
    """Builds both engines on one recipe and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._built: list[Engine] = []

    def recipe(self, **changes: Any) -> Recipe:
        return toy_recipe(self.folder, **changes)

    def native(self, recipe: Recipe) -> Engine:
        return self._keep(NativeEngine(recipe, InstantVerify()))

    def trl(self, recipe: Recipe, **engine: Any) -> Engine:
        return self._keep(build_engine(on_trl(recipe, **engine), InstantVerify()))

    def base(self, engine: Engine) -> PolicyRef:
        return engine.prepare("random:llama-1x32", self.folder / "base", seed=0)

    def close(self) -> None:
        for engine in self._built:
            engine.close()

    def _keep(self, engine: Engine) -> Engine:
        self._built.append(engine)
        return engine


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    found = Engines(tmp_path)
    yield found
    found.close()


def native_update(recipe: Recipe, base: PolicyRef, step: ExploreStep) -> dict[str, float]:
    """Do the step's update with the native learner, on what TRL sampled."""
    policy = load_policy(
        base.path,
        dtype=torch.float32,
        device=torch.device("cpu"),
        trust_remote_code=False,
        attn_implementation=attention.register(),
    )
    learner = Learner(
        policy.model,
        recipe.explore.optimizer,
        recipe.engine,
        num_updates=1,
        budget=token_budget(recipe.engine),
    )
    sequences = [
        TrainingSequence(
            prompt_ids=t.completion.prompt_ids,
            completion_ids=t.completion.completion_ids,
            behavior_logprobs=t.completion.behavior_logprobs,
            advantage=advantage,
        )
        for group in step.groups
        for rewards in [[t.reward for t in group.trajectories]]
        if has_signal(rewards)
        for t, advantage in zip(
            group.trajectories, group_advantages(rewards, recipe.explore.advantage), strict=True
        )
    ]
    objective = Objective(
        loss=recipe.explore.loss,
        clip_low=recipe.explore.clip_low,
        clip_high=recipe.explore.clip_high,
    )
    return dict(learner.update(sequences, objective))


@pytest.mark.parametrize(
    ("loss", "advantage", "microbatch_tokens"),
    [("dapo", "grpo", 4096), ("dapo", "rloo", 50), ("gspo", "dr_grpo", 50), ("cispo", "grpo", 50)],
)
def test_an_update_of_trls_has_the_native_learners_gradient(
    engines, loss, advantage, microbatch_tokens
):
    recipe = engines.recipe(explore__loss=loss, explore__advantage=advantage)
    recipe = on_trl(recipe, microbatch_tokens=microbatch_tokens)
    engine = engines.trl(recipe, microbatch_tokens=microbatch_tokens)
    base = engines.base(engine)
    step = next(iter(engine.explore(base, PROBLEMS, PLACE, num_steps=2)))
    assert 0 < step.metrics["groups_signal_frac"] < 1
    expected = native_update(recipe, base, step)
    assert step.metrics["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert step.metrics["loss_mean"] == pytest.approx(expected["loss_mean"], abs=1e-5)


def test_both_engines_explore_the_same_problems_in_the_same_order(engines):
    recipe = engines.recipe()
    found = []
    for engine in (engines.native(recipe), engines.trl(recipe)):
        steps = engine.explore(engines.base(engine), PROBLEMS, PLACE, num_steps=4)
        found.append([[g.problem.problem_id for g in step.groups] for step in steps])
    assert found[0] == found[1]


def test_both_engines_sample_a_policy_alike(engines):
    recipe = engines.recipe()
    ids = []
    for engine in (engines.native(recipe), engines.trl(recipe)):
        groups = engine.sample(engines.base(engine), PROBLEMS, 3, HELD_OUT)
        ids.append({g.problem.problem_id: completion_ids(g) for g in groups})
    assert ids[0] == ids[1]


def completion_ids(group: Group) -> list[tuple[int, ...]]:
    return [t.completion.completion_ids for t in group.trajectories]


EXAMPLES = [
    Example(
        problem_id=f"toy/{n}",
        prompt_ids=(5, 6 + n)[: 1 + n % 2],
        completion_ids=(*(7 + n + k for k in range(n % 3)), 2),
    )
    for n in range(8)
]


@pytest.mark.parametrize("microbatch_tokens", [4096, 5])
def test_both_engines_fine_tune_alike(engines, microbatch_tokens):
    """8 examples, 4 to an update, 2 epochs: the same 4 updates in the same order."""
    recipe = engines.recipe()
    trl = engines.trl(recipe, microbatch_tokens=microbatch_tokens)
    losses, scores = [], []
    for engine in (engines.native(recipe), trl):
        base = engines.base(engine)
        losses.append([u.metrics["loss_mean"] for u in engine.fine_tune(base, EXAMPLES, TUNE)])
        scores.append(engine.logprobs("live", EXAMPLES, temperature=1.0))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for ours, theirs in zip(*scores, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-3)
    assert losses[0][-1] < losses[0][0]


def test_a_saved_policy_is_the_one_that_was_live(engines, tmp_path):
    engine = engines.trl(engines.recipe())
    list(engine.fine_tune(engines.base(engine), EXAMPLES, TUNE))
    live = engine.logprobs("live", EXAMPLES, temperature=1.0)
    saved = engine.save_policy(tmp_path / "iter-001", "iter-001")
    assert engine.logprobs(saved, EXAMPLES, temperature=1.0) == live


def test_two_updates_a_step_are_one_step(engines):
    recipe = engines.recipe(explore__updates_per_step=2, explore__prompts_per_step=4)
    engine = engines.trl(recipe)
    steps = list(engine.explore(engines.base(engine), PROBLEMS, PLACE, num_steps=2))
    assert [step.step for step in steps] == [1, 2]
    versions = [{t.policy_version for g in s.groups for t in g.trajectories} for s in steps]
    assert versions == [{0}, {2}]


def test_a_chat_template_gives_both_engines_the_same_prompts(engines):
    recipe = engines.recipe(prompt={"system": "Add.", "suffix": " ="})
    prompts = []
    for engine in (engines.native(recipe), engines.trl(recipe)):
        step = next(iter(engine.explore(engines.base(engine), PROBLEMS, PLACE, num_steps=1)))
        prompts.append(
            [(t.completion.prompt_ids, t.completion.prompt_text) for g in step.groups
             for t in g.trajectories]
        )  # fmt: skip
    assert prompts[0] == prompts[1]


def test_adapters_train_and_are_saved_merged(engines, tmp_path):
    recipe = engines.recipe()
    lora = {"rank": 2, "alpha": 4.0}
    engine = engines.trl(recipe, lora=lora)
    base = engines.base(engine)
    before = engine.logprobs(base, EXAMPLES, temperature=1.0)
    list(engine.fine_tune(base, EXAMPLES, TUNE))
    live = engine.logprobs("live", EXAMPLES, temperature=1.0)
    assert live != before
    saved = engine.save_policy(tmp_path / "iter-001", "iter-001")
    assert engine.logprobs(saved, EXAMPLES, temperature=1.0) == live


def test_merged_adapters_are_pefts_own_merge():
    peft = pytest.importorskip("peft", reason="needs peft (extra peft)")
    lora = LoraConfig(rank=2, alpha=3.0)
    model = peft.get_peft_model(tiny_model(), peft_config(lora))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.3)
    found = plain_state(model.state_dict(), lora)
    expected = model.merge_and_unload().state_dict()
    assert set(found) == set(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight)
