"""Several processes under torchrun: the same as one process, and nothing lost when one ends."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from doubles_ranks import exercise, launch, wait_until, worker
from doubles_runs import toy_recipe, trajectories, with_mixed_groups

from rloop.engines.native.engine import NativeEngine
from rloop.observe.run_log import read_metrics
from rloop.recipe.config import Recipe
from rloop.recipe.load import resolved_json

TIMES = ("_s", "per_s")


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4.0}], ids=["whole", "lora"])
def test_two_processes_give_what_one_gives(tmp_path: Path, lora: Any):
    recipe = toy_recipe(tmp_path, engine__lora=lora)
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    program = ["-m", "doubles_ranks", str(tmp_path / "recipe.json"), str(tmp_path)]
    launcher = launch(program)
    said = launcher.communicate()[0]
    assert launcher.returncode == 0, said
    together = json.loads((tmp_path / "found.json").read_text())
    state = tmp_path / "state"
    alone: Any = exercise(NativeEngine(recipe), recipe, tmp_path / "alone", state=state)
    assert together["completions"] == alone["completions"]
    for metrics, expected in zip(together["updates"], alone["updates"], strict=True):
        assert metrics == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert together["resumed"] == together["updates"][-1]
    assert alone["resumed"] == pytest.approx(together["resumed"], rel=1e-6, abs=1e-6)
    if lora is None:  # masters and moments are shared out
        sizes = [file.stat().st_size for file in state.glob("learner*.safetensors")]
        assert len(sizes) == 2
        assert max(sizes) < 0.6 * sum(sizes)
    for row, wanted in zip(together["logprobs"], alone["logprobs"], strict=True):
        assert row == pytest.approx(wanted, abs=2e-5)  # after Adam, which divides by small numbers


def write_recipe(folder: Path) -> Path:
    folder.mkdir()
    recipe: Recipe = with_mixed_groups(toy_recipe(folder, explore__checkpoint_every=1))
    path = folder / "recipe.yaml"
    path.write_text(resolved_json(recipe))
    return path


def numbers(run_dir: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if not key.endswith(TIMES)}
        for line in read_metrics(run_dir)
    ]


def written(run_dir: Path) -> list[dict[str, Any]]:
    order = "iteration, phase, step, policy, problem_id, member"
    return trajectories(run_dir, f"select * exclude (run) from trajectories order by {order}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe, and a run of it on two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(folder / "given")
    launcher = launch(["-m", "rloop", "run", str(recipe), "--out", str(folder / "run")])
    said = launcher.communicate()[0]
    assert launcher.returncode == 0, said
    return recipe, folder / "run"


@pytest.mark.parametrize(
    ("rank", "number"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (None, signal.SIGINT)]
)
def test_a_run_that_lost_a_process_or_was_interrupted_goes_on_to_the_same_end(
    whole: tuple[Path, Path], tmp_path: Path, rank: int | None, number: signal.Signals
):
    recipe, expected = whole
    run_dir = tmp_path / "run"
    launcher = launch(["-m", "rloop", "run", str(recipe), "--out", str(run_dir)])
    explored = run_dir / "trajectories/iteration-1/phase-explore"
    wait_until((explored / "step-000002.parquet").exists, launcher)
    os.kill(launcher.pid if rank is None else worker(launcher, rank), number)
    begin = time.monotonic()
    said = launcher.communicate()[0]
    assert time.monotonic() - begin < 30
    assert launcher.returncode != 0
    if rank == 1:
        assert "Process 0 of 2 lost the others" in said
        assert f"rloop resume {run_dir}" in said
    if rank is None:
        assert "Interrupted; what was done is saved" in said
    launcher = launch(["-m", "rloop", "resume", str(run_dir)])
    said = launcher.communicate()[0]
    assert launcher.returncode == 0, said
    assert numbers(run_dir) == numbers(expected)
    assert written(run_dir) == written(expected)
