"""Settings made before torch is imported: as many threads as cores, passive waiting, and CUDA
memory in segments that can grow.

Threads that spin while they wait take the core from those that work: on a busy two-core machine
that made one measurement four times slower.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def set_threads(environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Set what the user's environment leaves open; return every such setting now in force."""
    wanted = {
        "OMP_NUM_THREADS": str(allowed_cores()),
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if "PYTORCH_ALLOC_CONF" not in environment:  # the newer name of the same
        # sampling and learning free pieces of different sizes, which then fit each other
        wanted["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    return {name: environment.setdefault(name, value) for name, value in wanted.items()}


def allowed_cores() -> int:
    """Return how many cores this process may use: its affinity, cut by the container's quota."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    quota = cgroup_cores(CGROUP_ROOT, Path("/proc/self/cgroup"))
    return max(1, min(available, int(quota))) if quota else available


def cgroup_cores(root: Path, membership: Path) -> float | None:
    """Return the tightest CPU quota on the way from our control group up to `root`, in cores.

    Reads version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`); None where there is no quota.
    """
    quotas = [
        quota
        for group in _groups(root, membership)
        for quota in (_quota_v2(group), _quota_v1(group))
        if quota
    ]
    return min(quotas, default=None)


def _groups(root: Path, membership: Path) -> list[Path]:
    """Return our groups and their parents that exist below `root`."""
    found = {root, root / "cpu"}
    for line in _read(membership).splitlines():
        _, controllers, name = line.split(":", 2)
        base = root / "cpu" if "cpu" in controllers.split(",") else root
        group = base / name.strip("/")
        while group != base:
            found.add(group)
            group = group.parent
    return sorted(found)


def _quota_v2(group: Path) -> float | None:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdecimal() else None


def _quota_v1(group: Path) -> float | None:
    quota = _read(group / "cpu.cfs_quota_us")
    period = _read(group / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
