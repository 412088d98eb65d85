"""Names that come from data or a recipe cannot lead out of the run directory, nor stop a run."""

import dataclasses
import tempfile
from pathlib import Path

import pytest
from doubles_records import group_at, place_at
from doubles_runs import begin, scripted, toy_recipe
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rloop.session.evaluate import free_folder
from rloop.store.trajectories import TrajectoryStore

BITS = ("..", "/", "\\", "\0", "~", ".", "-", "%2e", "%", "con", " ", "\n", "\x1b[2J", "a" * 300)
hostile = st.one_of(
    st.lists(st.sampled_from(BITS), max_size=6).map("".join),
    st.text(max_size=80),
    st.text(st.characters(min_codepoint=0x2000, codec="utf-8"), min_size=60, max_size=300),
)
HOSTILE_NAMES = ["../../../out", "/etc/passwd", "..", ".", "", "a/../..", "nul\0byte", "x" * 4000]


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=60, deadline=None)
@given(policy=hostile, task=hostile, problem_id=hostile)
@example(policy="../" * 9 + "out", task="/etc/passwd", problem_id="../x")
@example(policy="\0", task="\ud7ff" * 200, problem_id="\0" * 300)
def test_an_evaluations_file_stays_in_its_folder_and_reads_back(
    policy: str, task: str, problem_id: str
):
    with tempfile.TemporaryDirectory() as name:
        outer = Path(name)
        run_dir = outer / "runs" / "run"
        run_dir.mkdir(parents=True)
        store = TrajectoryStore(run_dir)
        place = place_at(0, phase="evaluate", policy=policy)
        for part in (f"{policy}-{task}", f"{policy}-{task}-000008"):
            path = store.append(place, [group_at(place, problem_id)], part=part)
            assert path.parent == run_dir / "trajectories/iteration-1/phase-evaluate"
            assert path.resolve().parent == path.parent.resolve()
        assert files(outer) == files(path.parent)
        assert len(files(outer)) == 2
        rows = store.rows(1, "evaluate", 0).to_pylist()
        assert [(row["policy"], row["problem_id"]) for row in rows] == [(policy, problem_id)] * 4


def test_names_that_are_long_and_alike_have_files_of_their_own(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    place = place_at(0, phase="evaluate")
    names = [f"{'t' * 500}{number}" for number in range(3)]
    paths = {store.append(place, [group_at(place)], part=name) for name in names}
    assert len(paths) == 3
    assert store.count() == 6


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_run_on_a_task_of_any_name_keeps_to_its_directory(tmp_path: Path, name: str):
    outer = tmp_path / "outer"
    folder = outer / "inner" / "here"
    folder.mkdir(parents=True)
    recipe = toy_recipe(folder, iterations=1)
    task = recipe.tasks.evaluate[0].model_copy(update={"name": name or None})
    train = recipe.tasks.train[0].model_copy(update={"name": f"{name}+"})
    tasks = recipe.tasks.model_copy(update={"evaluate": (task,), "train": (train,)})
    code, run_dir = begin(recipe.model_copy(update={"tasks": tasks}), folder, scripted())
    assert code == 0
    strays = files(tmp_path) - files(run_dir)
    assert {path.name for path in strays} == {"train.jsonl", "held-out.jsonl", "recipe.yaml"}


@given(name=hostile)
def test_the_folder_of_an_evaluation_is_one_below_its_root(name: str):
    with tempfile.TemporaryDirectory() as folder:
        recipe = toy_recipe(Path(folder))
        policy = recipe.policy.model_copy(update={"path": name})
        found = free_folder(Path(folder), recipe.model_copy(update={"policy": policy}))
    assert found.parent == Path(folder)
    assert found.name.startswith("eval-")


@given(iteration=st.integers(0, 10**6), step=st.integers(0, 10**9))
def test_files_of_a_place_are_named_by_numbers(iteration: int, step: int):
    place = dataclasses.replace(place_at(step), iteration=iteration)
    name = f"{place.iteration:03d}-{place.phase}-{place.step:06d}"
    assert Path(name).name == name
