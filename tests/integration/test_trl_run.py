"""Whole runs on TRL as their user starts them: two processes, one that dies, and what is kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doubles_runs import trajectories

from rloop.observe.run_log import read_metrics

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
"""A worker's death ends the run in this time (docs/decisions/0008)."""


def rloop(*arguments: str) -> "subprocess.Popen[str]":
    command = [str(Path(sys.executable).with_name("rloop")), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=-1, stderr=subprocess.STDOUT
    )


def worker(process: "subprocess.Popen[str]", rank: int) -> int:
    """Return the process id of the run's worker of this rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            variables = (folder / "environ").read_text().split("\0")
        except OSError:
            continue
        if "rloop.engines.trl.member" in words and f"RANK={rank}" in variables:
            pid = int(folder.name)
            if process.pid in ancestors(pid):
                return pid
    raise AssertionError(f"no worker of rank {rank}")


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def wait_for_step(process: "subprocess.Popen[str]", run_dir: Path, step: int) -> None:
    while process.poll() is None:
        lines = read_metrics(run_dir) if (run_dir / "metrics.jsonl").exists() else []
        if any(line["phase"] == "explore" and line["step"] >= step for line in lines):
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} never came: {process.communicate()[0]}")


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
def test_whoever_dies_is_named_or_leaves_nobody_behind_and_resume_finishes_the_run(tmp_path: Path):
    run_dir = tmp_path / "run"
    sets = [word for value in SETS for word in ("--set", value)]
    process = rloop("run", str(ROOT / "recipes" / "tiny.yaml"), *sets, "--out", str(run_dir))
    wait_for_step(process, run_dir, 7)
    os.kill(worker(process, 1), signal.SIGKILL)
    killed = time.monotonic()
    output, _ = process.communicate(timeout=NOTICED_S)
    assert process.returncode == 1, output
    assert time.monotonic() - killed < NOTICED_S
    assert "worker rank 1 on " in output
    assert "was ended by SIGKILL (often: out of memory)" in output
    assert f"go on with `rloop resume {run_dir}`" in output
    resumed = rloop("resume", str(run_dir))
    wait_for_step(resumed, run_dir, 11)
    workers = [worker(resumed, rank) for rank in (0, 1)]
    resumed.kill()
    resumed.communicate()
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
