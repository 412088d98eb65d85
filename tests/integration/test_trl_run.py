"""A whole run on TRL as its user starts it: two processes, rloop killed, and what is kept."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doubles_runs import trajectories
from doubles_workers import wait_for_step, worker

pytest.importorskip("trl", reason="needs TRL (extra trl)")

ROOT = Path(__file__).parents[2]
SETS = (
    "policy.path=random:llama-1x64",
    "iterations=1",
    "coldstart.epochs=8",
    "tasks.evaluate.0.size=8",
    "explore.steps=16",
    "explore.checkpoint_every=5",
    "engine.dtype=float32",
    "engine.name=trl",
    "engine.trl.launch.processes=2",
)
NOTICED_S = 30.0
"""Workers end in this time after rloop has (docs/decisions/0008)."""


def rloop(*arguments: str) -> "subprocess.Popen[str]":
    command = [str(Path(sys.executable).with_name("rloop")), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=-1, stderr=subprocess.STDOUT
    )


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + NOTICED_S
    while [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, "workers outlive the run that they worked for"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_run_that_is_killed_leaves_no_workers_behind_and_resume_finishes_it(tmp_path: Path):
    run_dir = tmp_path / "run"
    sets = [word for value in SETS for word in ("--set", value)]
    process = rloop("run", str(ROOT / "recipes" / "tiny.yaml"), *sets, "--out", str(run_dir))
    wait_for_step(process, run_dir, 7)
    workers = [worker(process, rank) for rank in (0, 1)]
    process.kill()
    process.communicate()
    wait_for_end(workers)
    resumed = rloop("resume", str(run_dir))
    output, _ = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, output
    assert (run_dir / "report.html").stat().st_size > 0
    counts = trajectories(
        run_dir,
        "select step, count(*) as rows, count(distinct problem_id || '/' || member) as different "
        "from trajectories where phase = 'explore' group by step order by step",
    )
    assert [row["step"] for row in counts] == list(range(1, 17))
    assert {(row["rows"], row["different"]) for row in counts} == {(64, 64)}
