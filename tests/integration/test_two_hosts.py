"""A run on two machines: network namespaces here, a process in each, a cable between them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from doubles_hosts import Host, two_hosts, why_no_hosts
from doubles_runs import trajectories
from doubles_workers import wait_for_step, worker

pytest.importorskip("trl", reason="needs TRL (extra trl)")

ROOT = Path(__file__).parents[2]
SILENCE_S = 3.0
RUN = (
    "policy.path=random:llama-1x64",
    "iterations=1",
    "coldstart.epochs=4",
    "tasks.evaluate.0.size=8",
    "explore.steps=24",
    "explore.checkpoint_every=4",
    "engine.dtype=float32",
    "engine.name=trl",
    "engine.trl.launch.processes=2",
    "engine.trl.launch.machines=2",
    "engine.trl.launch.port=29500",
    f"engine.trl.launch.silence_s={SILENCE_S}",
)


def start(
    hosts: Sequence[Host], words: Sequence[str], sets: Sequence[str] = ()
) -> "list[subprocess.Popen[str]]":
    """Start the same command on both hosts, each with its own machine's number."""
    rloop = str(Path(sys.executable).with_name("rloop"))
    return [
        host.start(
            [rloop, *words, *(w for value in (*sets, *own) for w in ("--set", value))],
            OMP_NUM_THREADS="1",
        )
        for rank, host in enumerate(hosts)
        for own in [(f"engine.trl.launch.machine_rank={rank}",) if sets or rank else ()]
    ]


def outputs(processes: "Sequence[subprocess.Popen[str]]", timeout_s: float) -> list[str]:
    """Return what both wrote, once both have failed in time."""
    deadline = time.monotonic() + timeout_s
    found = [p.communicate(timeout=deadline - time.monotonic())[0] for p in processes]
    assert [process.returncode for process in processes] == [1, 1], found
    return found


@pytest.mark.slow
def test_a_machine_that_is_lost_is_named_on_both_and_resume_finishes_the_run(tmp_path: Path):
    if reason := why_no_hosts():
        pytest.skip(reason)
    run_dir = tmp_path / "run"
    recipe = str(ROOT / "recipes" / "tiny.yaml")
    with two_hosts() as hosts:
        near, far = hosts
        sets = (*RUN, f"engine.trl.launch.address={near.address}")
        processes = start(hosts, ["run", recipe, "--out", str(run_dir)], sets)
        wait_for_step(processes[0], run_dir, 6)
        os.kill(worker(processes[1], 1), signal.SIGKILL)
        # Nothing is waited for but the word of the other launcher.
        for output in outputs(processes, 15):
            assert f"worker rank 1 on {far.name} was ended by SIGKILL" in output

        processes = start(hosts, ["resume", str(run_dir)])
        wait_for_step(processes[0], run_dir, 10)
        far.cable("down")
        # Noticed within 1.2 of the time, then the launchers look for each other for 10 s.
        said, said_there = outputs(processes, 1.2 * SILENCE_S + 20)
        assert f"worker rank 1 on {far.name} has not been heard of for 3 s" in said
        assert f"go on with `rloop resume {run_dir}`" in said
        assert f"the machine of worker rank 0 ({near.address}:29500) has not answered" in said_there

        far.cable("up")
        processes = start(hosts, ["resume", str(run_dir)])
        ends = [process.communicate(timeout=120)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], ends
    counts = trajectories(
        run_dir,
        "select step, count(*) as rows, count(distinct problem_id || '/' || member) as different "
        "from trajectories where phase = 'explore' group by step order by step",
    )
    assert [row["step"] for row in counts] == list(range(1, 25))
    assert {(row["rows"], row["different"]) for row in counts} == {(64, 64)}
