"""A full disk ends a run with one sentence; with room again it ends as if there always had been."""

import multiprocessing
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles_full_disk import SmallDisk, go_limited, remains
from doubles_kill import build_native, build_scripted, comparable, go
from doubles_runs import half_right, toy_recipe
from doubles_scripted import ScriptedEngine

from rloop.cli import main
from rloop.errors import RLoopError
from rloop.loop.manifest import Manifest
from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe
from rloop.store.verify import verify_run
from rloop.types import PolicyRef

ROOT = Path(__file__).parents[2]
CHANGES: dict[str, Any] = {"evaluate__every": 2, "iterations": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Recipe, dict[str, Any]]:
    """A recipe, and the files of a run of it that always had room."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = toy_recipe(folder, **CHANGES)
    assert go(recipe, folder / "run", build_scripted) == 0
    return recipe, comparable(folder / "run")


@pytest.fixture
def disk(tmp_path) -> Iterator[SmallDisk]:
    found = SmallDisk(tmp_path / "disk")
    if not found.is_there:
        pytest.skip("a small disk can be mounted by root on Linux alone")
    yield found
    found.close()


def fill(recipe: Recipe, run_dir: Path, build: Any) -> str:
    """Begin a run that cannot end; return what it says after checking what it leaves."""
    with pytest.raises(RLoopError) as caught:
        go(recipe, run_dir, build)
    said = str(caught.value)
    assert re.search(r"[0-9,]+ bytes free", said), said
    assert str(run_dir) in said
    assert remains(run_dir) == []
    return said


def go_on(recipe: Recipe, run_dir: Path, build: Any) -> None:
    """Resume as the message says, or begin again where nothing had been computed."""
    if (run_dir / "config.json").exists() and not Manifest(run_dir).has_begun:
        shutil.rmtree(run_dir)
    assert go(recipe, run_dir, build) == 0
    assert verify_run(run_dir).is_sound


@pytest.mark.parametrize("kilobytes", [16, 44, 60, 76, 100, 136, 156])
def test_a_run_on_a_disk_that_fills_ends_as_if_there_had_been_room(disk, whole, kilobytes):
    recipe, wanted = whole
    disk.resize(kilobytes)
    run_dir = disk.folder / "run"
    fill(recipe, run_dir, build_scripted)
    disk.resize(4096)
    go_on(recipe, run_dir, build_scripted)
    assert comparable(run_dir) == wanted


@pytest.mark.soak
def test_on_a_disk_that_fills_at_every_page_all_kinds_of_files_are_named(disk, whole, tmp_path):
    recipe, wanted = whole
    named = set()
    for kilobytes in range(16, 400, 4):
        disk.resize(kilobytes)
        run_dir = disk.folder / f"run-{kilobytes}"
        try:
            said = fill(recipe, run_dir, build_scripted)
        except pytest.fail.Exception:
            break  # the whole run has room
        named.add(re.sub(r"[0-9]+", "N", Path(said.split()[0]).name))
        disk.resize(4096)
        go_on(recipe, run_dir, build_scripted)
        assert comparable(run_dir) == wanted
        shutil.rmtree(run_dir)
    named = {re.sub("^(step)-.*", r"\1", name) for name in named}
    assert {"config.json", "manifest.json", "metrics.jsonl", "step"} <= named


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "trajectories/iteration-1/phase-explore/step-000003.parquet",
        "trajectories/iteration-1/phase-evaluate/step-000002-explored-001-held.parquet",
        "expert/iter-001-problems.parquet",
        "expert/iter-001.parquet",
    ],
)
def test_each_kind_of_file_is_named_when_it_cannot_be_written(tmp_path, whole, name):
    """Its temporary name is a link to a device that is always full: a real ENOSPC."""
    recipe, wanted = whole
    run_dir = tmp_path / "run"
    path = run_dir / name

    class Planted(ScriptedEngine):
        def prepare(self, *args: Any, **kwargs: Any) -> PolicyRef:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.tmp").symlink_to("/dev/full")
            return super().prepare(*args, **kwargs)

    said = fill(recipe, run_dir, lambda recipe: Planted(recipe, half_right))
    assert said.startswith(f"{path} could not be written: the disk is full (")
    assert f"`rloop resume {run_dir}` continues" in said
    go_on(recipe, run_dir, build_scripted)
    assert comparable(run_dir) == wanted


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8, 0.99])
def test_a_limit_on_the_size_of_files_is_a_full_disk_too(tmp_path, whole, share):
    """Runs everywhere: `ulimit -f`, in a process of its own; a share of its trajectories' file."""
    recipe, wanted = whole
    sizes = [len(data) for name, data in wanted.items() if name.endswith(".parquet")]
    limit = int(share * max(sizes))
    run_dir, log = tmp_path / "run", tmp_path / "log.txt"
    context = multiprocessing.get_context("forkserver")
    arguments = (log, recipe, run_dir, build_scripted, limit)
    process = context.Process(target=go_limited, args=arguments)
    process.start()
    process.join()
    said = log.read_text().splitlines()[-1]
    assert process.exitcode == 1, said
    assert re.match(rf"{run_dir}/\S+ could not be written: no file may be that large here", said)
    assert remains(run_dir) == []
    go_on(recipe, run_dir, build_scripted)
    assert comparable(run_dir) == wanted


def test_a_report_that_has_no_room_leaves_the_old_one(tmp_path, whole, monkeypatch, capsys):
    recipe, _ = whole
    run_dir = tmp_path / "run"
    assert go(recipe, run_dir, build_scripted) == 0
    (run_dir / "report.html").write_text("the old one")
    (run_dir / "report.html.tmp").symlink_to("/dev/full")
    monkeypatch.setattr("sys.argv", ["rloop", "report", str(run_dir)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    (said,) = capsys.readouterr().err.splitlines()[-1:]
    assert said.startswith(f"{run_dir / 'report.html'} could not be written: the disk is full (")
    assert (run_dir / "report.html").read_text() == "the old one"


NATIVE = [
    "policy.path=random:llama-1x32",
    "coldstart=null",
    "iterations=1",
    "tasks.evaluate.0.size=4",
    "explore.steps=3",
    "explore.prompts_per_step=4",
    "expert.max_success_rate=1.0",
    "engine.dtype=float32",
    "tasks.train.0.verifier=python:doubles_verifiers:is_short",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("every", "kilobytes", "names"),
    [
        (1, (60, 240, 420), {"policies/base", "state/explored-N-step-N"}),
        (9, (236, 244, 252), {"policies/iter-N"}),
    ],
    ids=["states", "policies"],
)
def test_weights_without_room_are_named_and_written_when_there_is(
    disk, tmp_path, every, kilobytes, names
):
    recipe = load_recipe(
        ROOT / "recipes" / "tiny.yaml", [*NATIVE, f"explore.checkpoint_every={every}"]
    )
    whole = tmp_path / "whole"
    assert go(recipe, whole, build_native) == 0
    wanted, named = comparable(whole), set()
    for size in kilobytes:
        run_dir = disk.folder / f"run-{size}"
        disk.resize(size)
        said = fill(recipe, run_dir, build_native)
        file = said[said.index(f"{run_dir}/") :].split()[0].removeprefix(f"{run_dir}/")
        named.add(re.sub(r"[0-9]+", "N", file))
        disk.resize(16_384)
        go_on(recipe, run_dir, build_native)
        assert comparable(run_dir) == wanted, named
        shutil.rmtree(run_dir)
    assert names <= named
