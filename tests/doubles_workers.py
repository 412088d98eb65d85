"""Worker processes of runs on TRL, as a test finds them in /proc, and how far their run is."""

import subprocess
import time
from pathlib import Path

from rloop.observe.run_log import read_metrics


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
    """Return when the exploration has done this step."""
    while process.poll() is None:
        lines = read_metrics(run_dir) if (run_dir / "metrics.jsonl").exists() else []
        if any(line["phase"] == "explore" and line["step"] >= step for line in lines):
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} never came: {process.communicate()[0]}")
