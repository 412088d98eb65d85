import math
from pathlib import Path

import pytest
from doubles_ngrams import diversity
from doubles_records import group_at, place_at
from doubles_runs import begin, scripted, toy_recipe, trajectories

from rloop.evaluation import similarity
from rloop.evaluation.similarity import read_groups, step_diversity, survey_exploration
from rloop.loop.rl import sampling_metrics
from rloop.observe.run_log import read_metrics
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group, Problem

HEALTH = """
    with groups as (
        select iteration, step, count(*) as size, sum(correct::int) as num_correct
        from trajectories where phase = 'explore' group by iteration, step, group_id)
    select iteration, step, count(*) as groups_count,
        sum(num_correct) / sum(size) as reward_mean,
        avg((num_correct = size)::int) as groups_all_correct_frac,
        avg((num_correct = 0)::int) as groups_all_wrong_frac,
        avg((num_correct between 1 and size - 1)::int) as groups_mixed_frac
    from groups group by iteration, step order by iteration, step
"""
"""Group health from the store alone."""


def explore(store: TrajectoryStore, step: int, groups: dict[str, list[str]]) -> list[Group]:
    """Store a step in which each problem got these completions; tokens are their letters."""
    place = place_at(step)
    made = [group_at(place, name, [(t, False) for t in texts]) for name, texts in groups.items()]
    store.append(place, made)
    return made


def test_diversity_of_a_step_is_that_of_the_plain_form(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    groups = explore(store, 1, {"it's": ["abcde", "abcdf", "xyz"], "b": ["same", "same", "more"]})
    explore(store, 2, {"b": ["same", "same"]})
    ids = [[t.completion.completion_ids for t in group.trajectories] for group in groups]
    first, second = step_diversity(store, survey_exploration(store))
    assert (first["iteration"], first["step"]) == (1, 1)
    assert first["diversity"] == pytest.approx(diversity(ids))
    assert first["distinct_answers"] == 2.5  # abcde, abcdf, xyz; same, more
    assert (second["diversity"], second["distinct_answers"]) == (0.0, 1.0)


def test_a_step_without_pairs_has_no_diversity(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    explore(store, 1, {"a": ["one"], "b": ["two"]})
    (row,) = step_diversity(store, survey_exploration(store))
    assert row["distinct_answers"] == 1.0
    assert math.isnan(row["diversity"])


def test_a_run_without_exploration_has_no_steps(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    assert step_diversity(store, survey_exploration(store)) == []


def test_what_is_read_does_not_grow_with_the_run(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(similarity, "MAX_STEPS", 4)
    store = TrajectoryStore(tmp_path)
    for step in range(1, 10):
        explore(store, step, {f"p{i:02d}": ["a", "b"] for i in range(20)})
    explore(store, 10, {f"p{i:02d}": [f"{j}" for j in range(12)] for i in range(20)})
    survey = survey_exploration(store)
    rows = step_diversity(store, survey)
    # 4 of 10 steps, evenly spaced from the first to the last; 8 of 12 members
    assert [row["step"] for row in rows] == [1, 4, 7, 10]
    cell = survey.places[-1], "p07"
    assert [len(group) for group in read_groups(store, "explore", [cell]).values()] == [8]


def test_only_the_group_that_is_named_is_read(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    explore(store, 1, {"a": ["one", "two"], "b'; --": ["x"]})
    explore(store, 2, {"a": ["three"]})
    cells = [((1, 1, "explored-001"), "b'; --"), ((1, 2, "explored-001"), "a")]
    found = read_groups(store, "explore", cells)
    texts = {cell: ["".join(map(chr, ids[:-1])) for ids in group] for cell, group in found.items()}
    assert texts == {cells[0]: ["x"], cells[1]: ["three"]}


def test_group_health_from_the_store_equals_what_the_run_logged(tmp_path: Path):
    def uneven(problem: Problem, member: int, updates: int) -> str:
        return problem.answer if member < (int(problem.answer) + updates) % 6 else "no idea"

    _, run_dir = begin(toy_recipe(tmp_path), tmp_path, scripted(uneven))
    logged = [line for line in read_metrics(run_dir) if line["phase"] == "explore"]
    rows = trajectories(run_dir, HEALTH)
    for name, key in (("reward_mean", "reward_mean"), ("groups_mixed_frac", "groups_signal_frac")):
        assert [row[name] for row in rows] == [line[f"explore/{key}"] for line in logged]
    assert len({row["groups_mixed_frac"] for row in rows}) > 1, "all steps were alike"


def test_group_health_from_the_store_equals_what_a_step_counts(tmp_path: Path):
    store, place = TrajectoryStore(tmp_path), place_at(1)
    verdicts = {"a": "rrr", "b": "www", "c": "rwr", "d": "wwr", "e": "www"}
    groups = [
        group_at(place, name, [(f"{i % 2}", letter == "r") for i, letter in enumerate(letters)])
        for name, letters in verdicts.items()
    ]
    store.append(place, groups)
    counted = sampling_metrics(groups, num_with_signal=2)
    (row,) = store.query(HEALTH).to_pylist()
    assert row["groups_all_wrong_frac"] == 0.4  # b and e of five
    assert {name: counted[name] for name in row if name in counted} == pytest.approx(
        {name: value for name, value in row.items() if name not in ("iteration", "step")}
    )
    (found,) = step_diversity(store, survey_exploration(store))
    assert found["distinct_answers"] == counted["distinct_answers_mean"] == 2.0
