import math
from pathlib import Path

import pytest
from doubles_ngrams import diversity
from doubles_ngrams import similarity as plain_similarity
from doubles_records import group_at, place_at

from rloop.evaluation import similarity
from rloop.evaluation.checkpoints import read_checkpoints
from rloop.evaluation.similarity import (
    Similarity,
    checkpoint_similarity,
    step_similarity,
    survey_exploration,
)
from rloop.store.trajectories import TrajectoryStore
from rloop.types import PhaseName

WORDS = ("abcdef", "abcdxy", "uvwxyz", "uvwabc", "aaaaaa", "abcdefgh", "zzabcd")


def texts(step: int, problem: int) -> list[str]:
    """Three completions that differ by step and problem, and share some 4-grams."""
    return [WORDS[(step * problem + step + member) % len(WORDS)] for member in range(3)]


def store_step(
    store: TrajectoryStore,
    step: int,
    groups: dict[str, list[str]],
    *,
    iteration: int = 1,
    phase: PhaseName = "explore",
) -> None:
    place = place_at(step, iteration=iteration, phase=phase, policy=f"explored-{iteration:03d}")
    made = [group_at(place, name, [(t, False) for t in found]) for name, found in groups.items()]
    store.append(place, made)


def measure(store: TrajectoryStore) -> Similarity:
    return step_similarity(store, survey_exploration(store))


def ids(groups: dict[str, list[str]]) -> dict[str, list[list[int]]]:
    return {name: [[*map(ord, text), 0] for text in found] for name, found in groups.items()}


def test_steps_that_share_problems_are_compared_as_in_the_plain_form(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    steps = [{f"p{i}": texts(step, i) for i in range(4)} for step in (1, 2, 3)]
    for number, groups in enumerate(steps, start=1):
        store_step(store, number, groups)
    found = measure(store)
    assert found.labels == ("1: 1", "1: 2", "1: 3")
    assert found.num_shared.tolist() == [[4] * 3] * 3
    for a in range(3):
        assert found.similarity[a, a] == pytest.approx(1 - diversity(list(ids(steps[a]).values())))
        for b in range(a):
            plain = plain_similarity(ids(steps[a]), ids(steps[b]))
            assert [found.similarity[a, b], found.similarity[b, a]] == pytest.approx([plain] * 2)
    assert len(set(found.similarity.ravel().round(6))) > 3, "all steps were alike"


def test_steps_are_pooled_until_each_problem_comes_once(tmp_path: Path):
    # four problems, two a step: an epoch is two steps, so six steps are three bins
    store = TrajectoryStore(tmp_path)
    for step in range(1, 7):
        names = ("a", "b") if step % 2 else ("c", "d")
        store_step(store, step, {name: texts(step, ord(name)) for name in names})
    found = measure(store)
    assert found.labels == ("1: 1-2", "1: 3-4", "1: 5-6")
    assert found.num_shared.tolist() == [[4] * 3] * 3


def test_a_run_that_sees_each_problem_once_is_one_bin_an_iteration(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    for iteration in (1, 2):
        for step in (1, 2):
            store_step(store, step, {f"{iteration}-{step}": texts(step, 1)}, iteration=iteration)
    found = measure(store)
    assert found.labels == ("1: 1-2", "2: 1-2")
    assert found.num_shared.tolist() == [[2, 0], [0, 2]]
    assert math.isnan(found.similarity[0, 1])


def test_bins_are_few_and_none_crosses_an_iteration(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    for iteration in (1, 2):
        for step in range(1, 21):
            store_step(store, step, {"a": texts(step, 1)}, iteration=iteration)
    labels = measure(store).labels
    assert len(labels) == 12
    assert (labels[0], labels[5], labels[6]) == ("1: 1-4", "1: 18-20", "2: 1-4")


def test_a_bin_of_many_tokens_is_narrowed_to_its_middle(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(similarity, "MAX_TOKENS", 3 * 7)  # three completions of 7 tokens in all
    store = TrajectoryStore(tmp_path)
    for step in range(1, 6):
        store_step(store, step, {f"p{step}": ["abcdef"]})
    assert measure(store).labels == ("1: 2-4",)


def test_problems_that_most_bins_have_are_compared(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(similarity, "MAX_PROBLEMS", 1)
    store = TrajectoryStore(tmp_path)
    for step, other in enumerate(("a", "a", "b", "c"), start=1):
        store_step(store, step, {"always": texts(step, 1), other: texts(step, 2)})
    found = measure(store)
    # 8 groups of 4 problems: two bins, of always and a, and of always, b and c
    assert found.labels == ("1: 1-2", "1: 3-4")
    assert found.num_shared.tolist() == [[1, 1], [1, 1]]


def test_one_completion_is_like_no_other_of_its_own(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    for step in (1, 2):
        store_step(store, step, {"a": ["abcdef"]})
    found = measure(store)
    assert math.isnan(found.similarity[0, 0])
    assert found.similarity[0, 1] == 1.0
    assert found.num_shared.tolist() == [[0, 1], [1, 0]]


def test_a_run_without_exploration_has_no_bins(tmp_path: Path):
    found = measure(TrajectoryStore(tmp_path))
    assert (found.labels, found.similarity.shape) == ((), (0, 0))


def test_evaluated_policies_are_compared_on_held_out_problems(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    steps = [{f"p{i}": texts(step, i) for i in range(3)} for step in (1, 2)]
    for number, groups in enumerate(steps, start=1):
        store_step(store, number, groups, phase="evaluate")
    store_step(store, 1, {"p0": ["other"]})
    found = checkpoint_similarity(store, read_checkpoints(store))
    assert found.labels == ("explored-001@1", "explored-001@2")
    assert found.similarity[0, 1] == pytest.approx(plain_similarity(*map(ids, steps)))
