"""When exploration ends early, and when a run has nothing left to learn from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from doubles_records import group_at, place_at
from doubles_runs import toy_recipe

from rloop.errors import DegenerateRun
from rloop.loop.rl import RLStep
from rloop.loop.stopping import MAX_SKIPPED, FinetuneStopRules, StopRules


def watch(folder: Path, **rules: Any) -> StopRules:
    recipe = toy_recipe(
        folder, evaluate__every=1, explore__early_stop={"patience_steps": 2, **rules}
    )
    return StopRules(recipe)


def reasons(watched: StopRules, key: str, values: list[float]) -> list[bool]:
    return [watched.early_stop({key: value}) is not None for value in values]


def test_entropy_below_its_limit_must_hold_for_the_steps_of_patience(tmp_path: Path):
    watched = watch(tmp_path, min_entropy=0.5)
    # 0.4 holds once, 0.6 breaks the streak, then 0.4 and 0.3 hold twice in a row
    assert reasons(watched, "entropy_mean", [0.4, 0.6, 0.4, 0.3]) == [False, False, False, True]


def test_the_gradient_norm_has_a_limit_and_the_reason_names_it(tmp_path: Path):
    watched = watch(tmp_path, max_grad_norm=10.0)
    watched.early_stop({"grad_norm": 11.0})
    reason = watched.early_stop({"grad_norm": 12.0})
    assert reason == "explore.early_stop.max_grad_norm=10.0 held 2 steps in a row"


def test_a_step_without_the_number_breaks_a_streak(tmp_path: Path):
    watched = watch(tmp_path, max_grad_norm=10.0)
    watched.early_stop({"grad_norm": 11.0})
    assert watched.early_stop({}) is None
    assert watched.early_stop({"grad_norm": 11.0}) is None


def test_rules_are_off_unless_given(tmp_path: Path):
    watched = watch(tmp_path)
    assert not any(reasons(watched, "entropy_mean", [0.0, 0.0, 0.0]))
    assert watched.early_stop_on_evaluation(0.9, 0.1) is None


@pytest.mark.parametrize(
    ("values", "ends"),
    [([0.5, 0.4, 0.3], True), ([0.5, 0.4, 0.4], False), ([0.5, 0.4, 0.45, 0.3], False)],
)
def test_pass_at_k_must_fall_as_often_in_a_row(tmp_path: Path, values: list[float], ends: bool):  # noqa: FBT001 (a case)
    watched = watch(tmp_path, pass_at_k_falls=2)
    found = [
        watched.early_stop_on_evaluation(previous, current)
        for previous, current in zip([None, *values], values, strict=False)
    ]
    assert (found[-1] is not None) == ends


RIGHT, WRONG = ("2", True), ("3", False)
MIXED = group_at(place_at(), completions=(RIGHT, WRONG))
ALIKE = group_at(place_at(), completions=(WRONG, WRONG))


BAD = {"skipped_updates_count": 1.0, "grad_norm": float("nan")}


def step(
    number: int, metrics: Mapping[str, float] | None = None, *, has_signal: bool = True
) -> RLStep:
    group = MIXED if has_signal else ALIKE
    numbers = {"groups_signal_frac": float(has_signal), **(metrics or {})}
    return RLStep(step=number, groups=(group,), metrics=numbers)


def test_a_collapsed_exploration_ends_and_one_that_never_learned_stops_the_run(tmp_path: Path):
    recipe = toy_recipe(tmp_path, explore__max_dead_steps=2)
    watched = StopRules(recipe)
    assert watched.check(step(1)) is None
    assert watched.check(step(2, has_signal=False)) is None
    reason = watched.check(step(3, has_signal=False))
    assert reason == (
        "no group had a signal for 2 steps in a row: of the last 1 groups 0 were all correct and 1 "
        "all wrong"
    )
    never = StopRules(recipe)
    never.check(step(1, has_signal=False))
    with pytest.raises(DegenerateRun, match=r"^No group had a signal.*Choose easier problems"):
        never.check(step(2, has_signal=False))


@pytest.mark.parametrize("how", ["plain RL", "explored"])
def test_where_rls_weights_are_the_product_a_collapse_stops_the_run(tmp_path: Path, how: str):
    changes: dict[str, Any] = {"expert": None, "finetune": None}
    if how == "explored":
        changes = {"finetune__init": "explored"}
    watched = StopRules(toy_recipe(tmp_path, explore__max_dead_steps=2, **changes))
    watched.check(step(1))
    watched.check(step(2, has_signal=False))
    with pytest.raises(DegenerateRun, match=r"RL has collapsed.*learning_rate=0.001") as caught:
        watched.check(step(3, has_signal=False))
    assert "easier" not in str(caught.value)


def test_updates_skipped_in_a_row_end_the_exploration(tmp_path: Path):
    watched = StopRules(toy_recipe(tmp_path))
    found = [watched.check(step(number, BAD)) for number in range(1, MAX_SKIPPED)]
    # a step without an update says nothing; one that went well begins the count again
    found.append(watched.check(step(MAX_SKIPPED, has_signal=False)))
    assert found == [None] * MAX_SKIPPED
    reason = watched.check(step(MAX_SKIPPED + 1, BAD))
    assert reason == (
        "the loss or its gradient was not finite in 5 steps in a row; lower "
        "explore.optimizer.learning_rate=0.001"
    )
    watched.check(step(MAX_SKIPPED + 2, {"loss_mean": 0.1, "grad_norm": 1.0}))
    assert watched.check(step(MAX_SKIPPED + 3, BAD)) is None


def test_streaks_of_a_saved_point_go_on(tmp_path: Path):
    first = StopRules(toy_recipe(tmp_path))
    for number in range(1, MAX_SKIPPED):
        first.check(step(number, BAD))
    second = StopRules(toy_recipe(tmp_path))
    second.streaks = dict(first.streaks)
    assert second.check(step(MAX_SKIPPED, BAD)) is not None


def test_a_fine_tuning_that_learns_nothing_stops_and_names_its_learning_rate():
    watched = FinetuneStopRules(1e-3, place_at(phase="finetune", policy="iter-001"))
    for _ in range(MAX_SKIPPED - 1):
        watched.check({"skipped_updates_count": 1.0}, is_last=False)
    resumed = FinetuneStopRules(1e-3, place_at(phase="finetune", policy="iter-001"))
    resumed.streaks = dict(watched.streaks)
    with pytest.raises(DegenerateRun, match=r"no iter-001.*5 updates in a row.*finetune\.opt"):
        resumed.check({"skipped_updates_count": 1.0}, is_last=False)


def test_a_short_fine_tuning_stops_where_every_update_was_skipped():
    def finetune(*skipped: float) -> None:
        watched = FinetuneStopRules(1e-3, place_at(phase="finetune", policy="iter-001"))
        for number, count in enumerate(skipped, start=1):
            watched.check({"skipped_updates_count": count}, is_last=number == len(skipped))

    finetune(1.0, 0.0, 1.0)
    with pytest.raises(DegenerateRun, match="in 2 updates in a row"):
        finetune(1.0, 1.0)
