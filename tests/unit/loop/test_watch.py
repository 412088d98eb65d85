"""When exploration ends early, and when a run has nothing left to learn from."""

from pathlib import Path
from typing import Any

import pytest
from doubles_runs import toy_recipe

from rloop.loop.watch import Watch


def watch(folder: Path, **rules: Any) -> Watch:
    recipe = toy_recipe(
        folder, evaluate__every=1, explore__early_stop={"patience_steps": 2, **rules}
    )
    return Watch(recipe)


def reasons(watched: Watch, key: str, values: list[float]) -> list[bool]:
    return [watched.early_stop({key: value}) is not None for value in values]


def test_entropy_below_its_limit_must_hold_for_the_steps_of_patience(tmp_path: Path):
    watched = watch(tmp_path, min_entropy=0.5)
    # 0.4 holds once, 0.6 breaks the streak, then 0.4 and 0.3 hold twice in a row
    assert reasons(watched, "entropy_mean", [0.4, 0.6, 0.4, 0.3]) == [False, False, False, True]


def test_entropy_above_its_limit_ends_exploration(tmp_path: Path):
    watched = watch(tmp_path, max_entropy=3.0)
    assert reasons(watched, "entropy_mean", [3.5, 3.0, 3.1, 3.2]) == [False, False, False, True]


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
