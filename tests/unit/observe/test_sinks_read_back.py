"""What a run sent to other trackers, read back with the trackers' own readers.

One scripted run for all of them: it is killed one step after its last saved point, then resumed.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles_runs import TIMES, logged

from rloop.observe.run_log import MAX_SHOWN, GlobalStep

DRIVER = Path(__file__).parents[2] / "doubles_tracked.py"
KINDS = ("tensorboard", "wandb", "trackio", "mlflow")
Point = tuple[str, int, float]
"""A value at a global step: key, step, value."""


@dataclass(frozen=True)
class Tracked:
    """A finished run, the sinks that followed it, and the environment it ran in."""

    run_dir: Path
    sinks: tuple[str, ...]
    env: dict[str, str]
    stdout: str
    stderr: str

    def need(self, name: str) -> None:
        if name not in self.sinks:
            pytest.skip(f"{name} is optional and not installed")

    def ask(self, *command: str) -> str:
        """Return what a tracker's own command prints about the run."""
        return run([sys.executable, "-m", *command], self.env).stdout


def run(command: list[str], env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> Tracked:
    folder = tmp_path_factory.mktemp("tracked")
    for name in ("home", "trackio"):
        (folder / name).mkdir()
    sinks = tuple(name for name in KINDS if find_spec(name))
    # MLflow turns its own statistics off where it sees that a test runs.
    theirs = ("WANDB_", "MLFLOW_", "TRACKIO_", "PYTEST_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
    env |= {
        "HOME": str(folder / "home"),
        "WANDB_MODE": "offline",
        "TRACKIO_DIR": str(folder / "trackio"),
        # mlflow-skinny has no database, and MLflow's folders must be asked for twice.
        "MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "HF_HUB_OFFLINE": "1",
    }
    dead = run([sys.executable, str(DRIVER), str(folder), "die", *sinks], env)
    assert dead.stderr.endswith("killed\n"), dead.stderr
    done = run([sys.executable, str(DRIVER), str(folder), "resume"], env)
    assert done.returncode == 0, done.stderr
    return Tracked(
        run_dir=folder / "run",
        sinks=sinks,
        env=env,
        stdout=dead.stdout + done.stdout,
        stderr=dead.stderr + done.stderr,
    )


def sent(run_dir: Path) -> list[Point]:
    """Return every finite value of metrics.jsonl at the step that trackers should have it.

    But for what takes time: of the step that was done again, trackers keep the first.
    """
    counter, points = GlobalStep(), []
    for line in logged(run_dir):
        step = counter.at(line["iteration"], line["phase"], line["step"])
        points += [(k, step, v) for k, v in line.items() if "/" in k and v is not None]
    return points


def untimed(points: Iterable[Point]) -> list[Point]:
    return [point for point in points if not point[0].endswith(TIMES)]


def by_key(points: list[Point]) -> list[Point]:
    return sorted(points, key=lambda point: point[0])


def test_the_run_is_long_enough_to_tell(tracked):
    points = sent(tracked.run_dir)
    # two iterations of 4 RL steps; in between two epochs over 12 examples in batches of 4
    assert [s for k, s, _ in points if k == "explore/reward_mean"][:5] == [1, 2, 3, 4, 11]
    assert len([k for k, _, _ in points if k == "evaluate/held/avg@4"]) == 5


def test_tensorboard_has_every_value_once_at_rising_steps(tracked):
    tracked.need("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator as reader

    found = reader.EventAccumulator(
        str(tracked.run_dir / "tensorboard"), size_guidance={"tensors": 0}
    )
    found.Reload()
    points: list[Point] = [
        (tag, event.step, event.tensor_proto.float_val[0])
        for tag in found.Tags()["tensors"]
        for event in found.Tensors(tag)
    ]
    # Event files hold numbers of 32 bits.
    expected = [(key, step, float(np.float32(value))) for key, step, value in sent(tracked.run_dir)]
    assert by_key(untimed(points)) == by_key(expected)


def test_wandb_has_every_value_once_and_both_parts_are_one_run(tracked):
    tracked.need("wandb")
    parts = sorted((tracked.run_dir / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(parts) == 2
    points: list[Point] = []
    for part in parts:
        lines = tracked.ask("wandb", "leet", "inspect", "--json", str(part)).splitlines()
        records = [json.loads(line) for line in lines]
        (begun,) = [record["run"] for record in records if record["type"] == "run"]
        assert begun["resume"] is True
        assert begun["run_id"] == (tracked.run_dir / "sink_id").read_text().strip()
        assert begun["config"]["update"]["explore"]["group_size"] == 4
        assert str(tracked.run_dir) in begun["notes"]
        points += wandb_points(record["history"] for record in records if "history" in record)
    # W&B sorts the keys of a line.
    assert by_key(untimed(points)) == by_key(sent(tracked.run_dir))
    tables = sorted((tracked.run_dir / "wandb").rglob("completions_*.table.json"))
    # two iterations of four RL steps
    assert len(tables) == 8
    table = json.loads(tables[0].read_text())
    assert table["columns"][:3] == ["problem", "prompt", "completion"]
    assert len(table["data"]) == MAX_SHOWN


def wandb_points(histories: Iterable[dict[str, Any]]) -> list[Point]:
    items = [history["item"] for history in histories]
    return [(k, item["global_step"], v) for item in items for k, v in item.items() if "/" in k]


def test_trackio_has_every_value_once_in_one_run(tracked):
    tracked.need("trackio")
    sql = "select run_name, step, metrics from metrics order by id"
    ask = ("query", "project", "--project", "rloop", "--sql", sql, "--json")
    rows = json.loads(tracked.ask("trackio.cli", *ask))["rows"]
    sink_id = (tracked.run_dir / "sink_id").read_text()
    assert {row["run_name"] for row in rows} == {f"run-{sink_id[:8]}"}
    points = [
        (k, row["step"], v)
        for row in rows
        for k, v in json.loads(row["metrics"]).items()
        if "/" in k
    ]
    assert untimed(points) == sent(tracked.run_dir)
    ask = ("query", "project", "--project", "rloop", "--sql", "select * from traces", "--json")
    traces = json.loads(tracked.ask("trackio.cli", *ask))["rows"]
    # two iterations of four RL steps
    assert len(traces) == 8 * MAX_SHOWN
    assert [m["role"] for m in json.loads(traces[0]["messages"])] == ["user", "assistant"]
    assert json.loads(traces[0]["metadata"])["verdict"] in ("correct", "wrong")


def test_mlflow_has_every_value_once_and_the_recipe_as_parameters(tracked, monkeypatch):
    tracked.need("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE", "HOME"):
        monkeypatch.setenv(name, tracked.env[name])
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracked.env["MLFLOW_TRACKING_URI"])
    (experiment,) = client.search_experiments(filter_string="name = 'rloop'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["explore.group_size"] == "4"
    assert found.data.params["tasks.evaluate.0.name"] == "held"
    expected = sent(tracked.run_dir)
    for key in ("explore/reward_mean", "finetune/loss_mean", "evaluate/held/pass@4_diff_low"):
        history = client.get_metric_history(found.info.run_id, key.replace("@", "_at_"))
        assert [(key, m.step, m.value) for m in history] == [p for p in expected if p[0] == key]
    kept = {key for key in found.data.metrics if not key.endswith(TIMES)}
    assert len(kept) == len({key for key, _, _ in expected})


def test_trackers_print_nothing_on_standard_output(tracked):
    heading = tracked.stdout.splitlines()[0]
    assert re.split(r"\s{2,}", heading) == [
        "task",
        "policy",
        "value [interval]",
        "difference [interval]",
    ]
    assert "rackio" not in tracked.stdout
    assert "wandb" not in tracked.stdout


def test_nothing_is_written_but_where_the_run_or_the_trackers_own_variable_says(tracked):
    home = Path(tracked.env["HOME"])
    written = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    # W&B's debug logs, in its WANDB_CACHE_DIR.
    assert [path for path in written if not path.startswith(".cache/wandb/logs/")] == []
    beside = {path.name for path in tracked.run_dir.parent.iterdir()}
    toys = {"recipe.yaml", "train.jsonl", "held-out.jsonl", "run", "home"}
    assert beside - toys <= {"trackio", "mlruns"}
