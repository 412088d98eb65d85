"""Methods are settings of the switches that keep the budget of completions sampled in RL."""

from pathlib import Path

import pytest
from doubles_runs import toy_recipe
from hypothesis import given
from hypothesis import strategies as st

from rloop.errors import ConfigError
from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe
from rloop.recipe.methods import (
    METHODS,
    budget_warnings,
    find_methods,
    last_phase,
    method_of,
    method_title,
)

ROOT = Path(__file__).parents[3]
TINY = load_recipe(ROOT / "recipes/tiny.yaml")
RL: dict[str, object] = {"expert": None, "finetune": None}


def sampled(recipe: Recipe) -> int:
    explore = recipe.explore
    return recipe.iterations * explore.steps * explore.prompts_per_step * explore.group_size


def changed(recipe: Recipe, **values: object) -> Recipe:
    """Return the recipe with values at keys such as explore__steps."""
    data = recipe.model_dump(mode="json")
    for key, value in values.items():
        *parents, last = key.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = value
    return Recipe.model_validate(data)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_the_budget_and_is_recognised(name):
    recipe = METHODS[name].of(TINY)
    assert sampled(recipe) == sampled(TINY) == 2 * 4 * 8 * 8
    assert method_of(recipe.model_dump(mode="json")) is METHODS[name]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_changes_only_its_switches(name):
    changes = {
        "rloop": set(),
        "rl": {"iterations", "explore", "expert", "finetune", "evaluate"},
        "raft": {"explore"},
        "rest_em": {"explore", "finetune"},
        "keep_weights": {"finetune"},
        "from_base": {"finetune"},
        "no_hardness": {"expert"},
        "accumulated": {"expert"},
        "coverage": {"expert"},
        "likelihood": {"expert"},
        "rl_mix": {"iterations", "explore", "expert", "finetune", "evaluate", "mix"},
        "rloop_mix": {"mix"},
        "replay": {"explore", "expert", "finetune"},  # of two iterations already
    }
    before, after = TINY.model_dump(), METHODS[name].of(TINY).model_dump()
    assert {key for key in before if before[key] != after[key]} == changes[name]


@given(
    iterations=st.integers(1, 5),
    steps=st.integers(1, 50),
    every=st.integers(0, 60),
    name=st.sampled_from(list(METHODS)),
)
def test_any_recipe_keeps_its_budget_under_any_method(iterations, steps, every, name):
    recipe = changed(TINY, iterations=iterations, explore__steps=steps, evaluate__every=every)
    if name == "replay" and iterations * steps % 2:
        with pytest.raises(ConfigError, match=rf"iterations={iterations} of explore.steps={steps}"):
            METHODS[name].of(recipe)
        return
    assert sampled(METHODS[name].of(recipe)) == sampled(recipe)


@pytest.mark.parametrize(("iterations", "steps", "each"), [(2, 4, 4), (3, 6, 9), (1, 8, 4)])
def test_replay_parts_the_steps_into_two_explorations(iterations, steps, each):
    recipe = METHODS["replay"].of(changed(TINY, iterations=iterations, explore__steps=steps))
    explore = recipe.explore
    assert (recipe.iterations, explore.steps) == (2, each)
    assert explore.replay_per_group == 2
    assert (recipe.expert, recipe.finetune) == (None, None)


def test_coverage_takes_the_recipes_cap_or_its_own():
    assert TINY.expert is not None
    for cap, expected in ((4, 4), (None, 8)):
        recipe = METHODS["coverage"].of(
            changed(TINY, expert__per_problem_cap=cap, expert__prefer="newest")
        )
        assert recipe.expert is not None
        assert recipe.expert.per_problem_cap == expected
        assert (recipe.expert.prefer, recipe.expert.weight) == ("diverse", "inverse_frequency")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("rl", "1/explore"),
        ("rl_mix", "1/evaluate/iter-001"),
        ("replay", "2/explore"),
        ("rloop", "2/evaluate/iter-002"),
    ],
)
def test_a_run_ends_with_the_last_phase_of_its_method(name, key):
    config = METHODS[name].of(TINY).model_dump(mode="json")
    assert last_phase(config) == key


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"explore__replay_per_group": 2}, "replay_per_group=2 works only in plain RL"),
        (RL | {"explore__replay_per_group": 2, "iterations": 1}, "got iterations=1"),
        ({"explore__early_stop": {"min_steps": 5}}, "min_steps=5 is more than explore.steps=4"),
    ],
)
def test_switches_that_make_no_sense_together_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        changed(TINY, **changes)


@pytest.mark.parametrize(("every", "expected"), [(0, 4), (2, 2), (4, 4), (7, 4)])
def test_plain_rl_is_measured_where_rloop_measures_its_explorations(every, expected):
    recipe = METHODS["rl"].of(changed(TINY, evaluate__every=every))
    assert (recipe.iterations, recipe.explore.steps) == (1, 8)  # 2 iterations x 4 steps
    assert recipe.evaluate.every == expected
    assert (recipe.expert, recipe.finetune) == (None, None)


def test_a_schedule_stretches_with_the_steps_of_the_method():
    recipe = changed(
        TINY,
        explore__optimizer={"learning_rate": 1e-3, "schedule": "cosine", "warmup_frac": 0.25},
    )
    plain = METHODS["rl"].of(recipe)
    assert plain.explore.optimizer == recipe.explore.optimizer
    # a quarter of 8 steps instead of a quarter of 4, by the fraction alone
    assert plain.explore.optimizer.warmup_frac * plain.explore.steps == 2


def test_frozen_methods_learn_nothing_in_rl_and_keep_rules_that_watch_learning_off():
    recipe = changed(
        TINY,
        evaluate__every=2,
        explore__early_stop={"pass_at_k_falls": 2, "min_entropy": 0.1},
    )
    for name, start in (("raft", "iteration_start"), ("rest_em", "base")):
        frozen = METHODS[name].of(recipe)
        assert frozen.explore.optimizer.learning_rate == 0
        assert frozen.explore.early_stop.pass_at_k_falls is None
        assert frozen.evaluate.every == 0
        assert frozen.finetune is not None
        assert frozen.finetune.init == start


def test_raft_takes_groups_of_one():
    recipe = METHODS["raft"].of(TINY)
    single = changed(recipe, explore__group_size=1)
    assert method_of(single.model_dump(mode="json")) is METHODS["raft"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expert": None, "finetune": None}, "expert and finetune set to null"),
        ({"explore__optimizer__learning_rate": 0}, r"learning_rate=0.*raft and rest_em"),
    ],
)
def test_a_recipe_without_rl_or_fine_tuning_makes_no_methods(changes, said):
    with pytest.raises(ConfigError, match=said):
        METHODS["rloop"].of(changed(TINY, **changes))


def test_methods_are_found_by_name_in_order_and_once():
    assert [m.name for m in find_methods("rl, rloop,rl")] == ["rl", "rloop"]
    with pytest.raises(ConfigError, match=r"rloop, rl, raft.*'grpo' is not one"):
        find_methods("rl,grpo")
    with pytest.raises(ConfigError, match="none was named"):
        find_methods(" ,")


def test_sampling_from_a_frozen_policy_is_no_method(tmp_path):
    recipe = toy_recipe(
        tmp_path, expert=None, finetune=None, explore__optimizer={"learning_rate": 0}
    )
    config = recipe.model_dump(mode="json")
    assert method_of(config) is None
    assert method_title(config) == "Sampling from a frozen policy"


def test_what_changes_the_real_budget_is_warned_of():
    every = list(METHODS.values())
    assert budget_warnings(TINY, every) == []
    recipe = changed(
        TINY,
        explore__refill_rounds=2,
        explore__early_stop={"max_grad_norm": 3.0},
        explore__focus="hard",
    )
    refill, stop, focus = budget_warnings(recipe, every)
    assert "explore.refill_rounds=2" in refill
    assert "explore.early_stop" in stop
    assert "explore.focus=hard" in focus
    assert len(budget_warnings(recipe, [METHODS["rloop"]])) == 2
