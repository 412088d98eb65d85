"""Policies at several temperatures on the scripted engine: planned, measured, resumed, shown."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from doubles_runs import begin, half_right, scripted, toy_recipe
from doubles_scripted import ScriptedEngine

from rloop import cli
from rloop.cli.evaluate import read_numbers
from rloop.engines import registry
from rloop.engines.base import Engine, Sampled, SampleRequest
from rloop.errors import ConfigError, StoreError
from rloop.recipe.config import Recipe, SamplingConfig
from rloop.report.page import write_report
from rloop.session.evaluate import scores_in
from rloop.session.process import resume
from rloop.session.temperatures import (
    Point,
    loop_start,
    measure_points,
    plan_points,
    read_plan,
    read_points,
    with_bases,
    write_means,
)
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Problem


class Building:
    """Builds engines that answer wrong more often at higher temperatures; remembers its work."""

    def __init__(self, die_at: int | None = None) -> None:
        self.loaded: list[str] = []
        self.temperatures: list[float] = []
        self._die_at = die_at

    def __call__(self, recipe: Recipe) -> Engine:
        building = self
        building.loaded.append(Path(recipe.policy.path).name)

        class Sharpened(ScriptedEngine):
            def sample(
                self, requests: Sequence[SampleRequest], settings: SamplingConfig
            ) -> Iterator[tuple[int, Sampled]]:
                building.temperatures.append(settings.temperature)
                if len(building.temperatures) == building._die_at:
                    raise SystemExit("killed")
                yield from super().sample(requests, settings)

        def answer(problem: Problem, member: int, updates: int) -> str:
            del updates
            return problem.answer if member >= building.temperatures[-1] else "no"

        return Sharpened(recipe, answer)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    _, found = begin(toy_recipe(folder), folder, scripted(half_right))
    return found


def measured(points: Sequence[Point], folder: Path, build: Building) -> list[dict[str, Any]]:
    assert measure_points(points, folder, build) == 0
    return read_points(folder)


def points_at(run_dir: Path, *temperatures: float):
    recipe = Recipe.model_validate_json((run_dir / "config.json").read_text())
    bases, others = with_bases([str(run_dir / "policies" / "iter-002")])
    recipes = [
        recipe.model_copy(update={"policy": recipe.policy.model_copy(update={"path": path})})
        for path in (*bases, *others)
    ]
    return plan_points(recipes, temperatures, bases)


def test_a_policy_brings_the_base_of_its_run(run_dir):
    policy = str(run_dir / "policies" / "iter-002")
    bases, others = with_bases([policy, policy])
    assert [Path(path).name for path in bases] == ["base"]
    assert others == [policy]
    # the base named by hand is still the base
    assert with_bases([bases[0], policy]) == (bases, others)
    assert loop_start("some/hub-name") is None


def test_each_policy_is_loaded_once_and_measured_at_every_temperature(run_dir, tmp_path):
    build = Building()
    found = measured(points_at(run_dir, 0, 1, 2), tmp_path / "t", build)
    assert build.loaded == ["base", "iter-002"]
    assert build.temperatures == [0, 1, 2] * 2
    averages = [p["value"] for p in found if (p["metric"], p["policy"]) == ("avg@4", "iter-002")]
    assert averages == [1.0, 0.75, 0.5]  # members 0 .. 3 are right from the temperature on
    assert {(p["policy"], p["is_base"]) for p in found} == {("base", True), ("iter-002", False)}
    folder = tmp_path / "t" / "iter-002-t2"
    stored = TrajectoryStore(folder).query("select distinct temperature as t from trajectories")
    assert stored.to_pylist() == [{"t": 2.0}]


def test_an_interrupted_plan_goes_on_where_it_was(run_dir, tmp_path):
    points = points_at(run_dir, 0, 1, 2)
    whole = measured(points, tmp_path / "whole", Building())
    torn = tmp_path / "torn"
    with pytest.raises(SystemExit):
        measure_points(points, torn, Building(die_at=5))
    build = Building()
    assert measured(read_plan(torn), torn, build) == whole
    assert build.loaded == ["iter-002"]  # the base was complete
    assert build.temperatures == [1, 2]
    again = Building()
    assert measured(read_plan(torn), torn, again) == whole
    assert again.loaded == []


def test_points_share_problems_and_random_streams(run_dir, tmp_path):
    folder = tmp_path / "t"
    measure_points(points_at(run_dir, 0, 1), folder, Building())
    streams = {
        tuple(
            map(
                tuple,
                TrajectoryStore(one)
                .query("select problem_id, member, seed from trajectories order by all")
                .to_pydict()
                .values(),
            )
        )
        for one in folder.iterdir()
        if one.is_dir()
    }
    assert len(streams) == 1


def test_policies_of_one_name_are_told_apart_by_their_runs(run_dir):
    recipe = Recipe.model_validate_json((run_dir / "config.json").read_text())
    paths = ["runs/a/policies/iter-001", "runs/b/policies/iter-001", "hub/model"]
    recipes = [
        recipe.model_copy(update={"policy": recipe.policy.model_copy(update={"path": path})})
        for path in paths
    ]
    points = plan_points(recipes, [0.5], [])
    assert [point.policy for point in points] == ["a/iter-001", "b/iter-001", "model"]
    assert [point.folder for point in points] == [
        "a-iter-001-t0.5",
        "b-iter-001-t0.5",
        "model-t0.5",
    ]


def test_numbers_are_read_in_order_each_once():
    assert read_numbers("1.0,0.3,0,1", lambda one: one >= 0, "") == [0.0, 0.3, 1.0]


@pytest.mark.parametrize(
    ("option", "text", "refusal"),
    [
        *(("--temperatures", text, "numbers of at least 0") for text in ("", "0.3;0.5", "-1")),
        *(("--temperatures", text, "numbers of at least 0") for text in ("warm", "nan", "inf")),
        *(("--mix", text, "numbers between 0 and 1") for text in ("", "0", "0.5,1", "half")),
    ],
)
def test_other_numbers_are_refused(run_dir, tmp_path, monkeypatch, capsys, option, text, refusal):
    policy = str(run_dir / "policies" / "iter-002")
    monkeypatch.setattr(
        sys, "argv", ["rloop", "eval", policy, f"{option}={text}", "--out", str(tmp_path / "t")]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert f"{option} takes {refusal}" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def test_a_folder_with_something_else_in_it_is_refused(run_dir, tmp_path):
    (tmp_path / "note.txt").touch()
    with pytest.raises(ConfigError, match=r"is not empty\. Choose another --out"):
        measure_points(points_at(run_dir, 1), tmp_path, Building())


def end(run_dir: Path, point: str) -> dict[str, float]:
    """Return the metrics of a point of a run's last check."""
    folder = run_dir / "temperatures" / "iter-002-n4" / point
    return {f"{score.task}/{score.metric}": score.value for score in scores_in(folder) or ()}


def test_a_run_ends_with_its_base_and_its_last_policy_at_several_temperatures(tmp_path):
    build = Building()
    code, run_dir = begin(toy_recipe(tmp_path, evaluate__temperatures=[1, 2]), tmp_path, build)
    assert code == 0
    assert build.loaded == ["random:llama-1x32"]  # the run's own engine
    averages = [end(run_dir, point)["held/avg@4"] for point in ("iter-002-t2", "base-t1")]
    assert averages == [0.5, 0.75]
    (row,) = json.loads((run_dir / "temperatures" / "iter-002-n4" / "sharpening.json").read_text())
    # every problem is solved in 4 tries at both temperatures, so the base counts at its best, 1
    assert (row["policy"], row["temperature"], row["value"]) == ("iter-002", 2.0, -0.25)
    assert row["verdict"] == "not beyond sharpening"
    page = write_report(run_dir).read_text()
    assert "No: -25.0 points" in page


def test_after_a_cold_start_its_policy_is_the_one_to_beat(tmp_path):
    recipe = toy_recipe(tmp_path, iterations=1, evaluate__temperatures=[1])
    task = {"source": recipe.tasks.train[0].source, "name": "c", "verifier": "numeric"}
    coldstart = {"task": task, "epochs": 1, "batch_size": 4, "optimizer": {"learning_rate": 1e-3}}
    data = recipe.model_dump(mode="json") | {"coldstart": coldstart}
    _, run_dir = begin(Recipe.model_validate(data), tmp_path, Building())
    points = read_points(run_dir / "temperatures" / "iter-001-n4")
    assert {(p["policy"], p["is_base"]) for p in points} == {
        ("coldstart", True),
        ("iter-001", False),
    }


def test_a_run_killed_in_its_last_check_resumes_to_the_same(tmp_path):
    wholes: list[tuple[Building, Path]] = []
    for name, temperatures in (("without", []), ("whole", [1, 2])):
        build, folder = Building(), tmp_path / name
        folder.mkdir()
        _, run_dir = begin(toy_recipe(folder, evaluate__temperatures=temperatures), folder, build)
        wholes.append((build, run_dir))
    (without, _), (_, whole) = wholes
    folder = tmp_path / "torn"
    folder.mkdir()
    recipe = toy_recipe(folder, evaluate__temperatures=[1, 2])
    with pytest.raises(SystemExit):
        begin(recipe, folder, Building(die_at=len(without.temperatures) + 3))
    build = Building()
    assert resume(folder / "run", build) == 0
    assert build.temperatures == [1, 2]
    for point in ("base-t1", "base-t2", "iter-002-t1", "iter-002-t2"):
        assert end(folder / "run", point) == end(whole, point)


def test_more_samples_are_measured_apart_from_the_fewer_ones(tmp_path):
    changes = {"evaluate__temperatures": [1, 2], "evaluate__temperature_samples": 2}
    _, run_dir = begin(toy_recipe(tmp_path, **changes), tmp_path, Building())
    assert resume(run_dir, Building(), overrides=["evaluate.temperature_samples=4"]) == 0
    assert end(run_dir, "iter-002-t2")["held/avg@4"] == 0.5
    # the report speaks of the samples that the recipe has now: 2 of 4 against 3 of 4
    assert "No: -25.0 points" in write_report(run_dir).read_text()


def test_a_folder_is_not_continued_with_other_points(run_dir, tmp_path):
    folder = tmp_path / "t"
    measure_points(points_at(run_dir, 0, 1), folder, Building())
    with pytest.raises(ConfigError, match="was begun with other policies"):
        measure_points(points_at(run_dir, 0, 2), folder, Building())


def test_a_policy_outside_a_run_has_nothing_to_be_averaged_with(tmp_path):
    with pytest.raises(ConfigError, match="is not in a run that has its base"):
        write_means([str(tmp_path)], [0.5], tmp_path / "t")


def test_a_torn_plan_is_said_to_be_one(tmp_path):
    (tmp_path / "plan.json").write_text("[{}")
    with pytest.raises(StoreError, match="does not say what is measured"):
        read_plan(tmp_path)


def test_the_command_prints_a_table_writes_a_page_and_resumes(
    run_dir, tmp_path, monkeypatch, capsys
):
    policy, out = run_dir / "policies" / "iter-002", tmp_path / "t"
    monkeypatch.setattr(registry, "build_engine", Building())

    def rloop(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["rloop", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0
        printed: str = capsys.readouterr().out
        return printed

    told = rloop("eval", str(policy), "--temperatures", "1,2", "--out", str(out))
    words = [line.split() for line in told.splitlines()]
    rows = [line[:3] for line in words if line[:1] == ["iter-002"] and line[1] != "on"]
    assert rows == [["iter-002", "1", "0.750"], ["iter-002", "2", "0.500"]]
    page = (out / "temperatures.html").read_text()
    assert "base, iter-002 at 2 temperatures" in page
    assert rloop("resume", str(out)) == told
    measured = json.loads(
        rloop("eval", str(policy), "--temperatures", "1", "--out", f"{out}2", "--json")
    )
    assert {row["policy"] for row in measured} == {"base", "iter-002"}
