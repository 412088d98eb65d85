"""Runs that are killed at a precise moment: at their n-th change of a file, or submitted verdict.

An audit hook of the interpreter counts moments in a process of its own, which then kills itself
with SIGKILL, as the kernel does when memory is short. Processes are forked from a server that has
imported what they need.
"""

import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from doubles_runs import BuildEngine, half_right, logged
from doubles_scripted import ScriptedEngine

from rloop.algo.objective import Objective
from rloop.engines.base import Engine, TrainingSequence
from rloop.recipe.config import Recipe
from rloop.tasks.verifiers import registry
from rloop.types import PolicyRef, Problem, Verdict

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
"""Audit events that change files, besides files opened for writing."""
EXEMPT = re.compile(
    r"\.lock|events\.jsonl|report\.html|heartbeat\.json(\.tmp)?|trajectories/\.superseded/.*"
)
"""Files of a run that hold times or process ids, or what was sampled twice."""


class Moments:
    """Counts changes to files under a folder, and marks; kills this process at one of them."""

    def __init__(self, folder: Path, number: int | None, *, tear: bool) -> None:
        """Kill just before the number-th, from 1; with `tear` half of a file's news is lost."""
        self._folder = str(folder)
        self._number = number
        self._tear = tear
        self._synced: dict[str, int] = {}
        self.seen: list[str] = []

    def watch(self) -> Self:
        """Begin, for the rest of this process."""
        sys.addaudithook(self._on_event)
        sync = os.fsync

        def fsync(fd: Any) -> None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            self._count(f"fsync {path}", fd)
            sync(fd)
            self._synced[path] = os.fstat(fd).st_size

        os.fsync = fsync
        return self

    def _on_event(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "mark":
            self._count(f"mark {self._folder} {args[0]}")
        elif event in CHANGES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)):
            self._count(f"{event} {args[0]}")

    def _count(self, moment: str, descriptor: int | None = None) -> None:
        path = moment.partition(" ")[2]
        if not path.startswith(self._folder) or "heartbeat" in path:
            return
        self.seen.append(moment.replace(self._folder, ""))
        if len(self.seen) == self._number:
            if self._tear and descriptor is not None and os.path.isfile(path):
                size, synced = os.fstat(descriptor).st_size, self._synced.get(path, 0)
                os.ftruncate(descriptor, synced + (size - synced) // 2)
            os.kill(os.getpid(), signal.SIGKILL)


class Judge:
    """Stands in for the verifiers' processes, which change no files; gives the same verdicts."""

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        sys.audit("mark", f"submit {problem.problem_id}")
        future: Future[Verdict] = Future()
        future.set_result(registry.judge(problem, completion_text))
        return future

    def verify(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [registry.judge(problem, text) for problem, text in pairs]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def build_scripted(recipe: Recipe) -> Engine:
    return ScriptedEngine(recipe, half_right)


def build_native(recipe: Recipe) -> Engine:
    """Return a native engine that marks its updates."""
    from rloop.engines.native.engine import NativeEngine

    class Marking(NativeEngine):
        _held_name = "base"

        def load(self, policy: PolicyRef) -> None:
            super().load(policy)
            self._held_name = policy.name

        def update(
            self,
            sequences: Sequence[TrainingSequence],
            objective: Objective,
            *,
            learning_rate: float,
        ) -> dict[str, float]:
            metrics = super().update(sequences, objective, learning_rate=learning_rate)
            sys.audit("mark", f"{objective.loss} of {self._held_name}")
            return metrics

    return Marking(recipe)


def go(recipe: Recipe, run_dir: Path, build: BuildEngine) -> int:
    """Begin a run, or go on with it, as its user would."""
    from rloop.session import process

    # Only while the run goes: the process may be that of other tests.
    with patch.object(process, "VerifierPool", Judge):
        if (run_dir / "config.json").exists():
            return process.resume(run_dir, build)
        source = run_dir.with_name("recipe.yaml")
        source.write_text("# as given\n")
        return process.start(source, recipe, run_dir, build)


def go_until(
    recipe: Recipe,
    run_dir: Path,
    build: BuildEngine,
    number: int | None,
    num_torn: int = 0,
) -> int:
    """Go on until the number-th moment of this process, which may tear a file; None is never."""
    moments = Moments(run_dir, number, tear=num_torn > 0).watch()
    code = go(recipe, run_dir, build)
    run_dir.with_name("moments.txt").write_text("\n".join(moments.seen))
    return code


def in_a_process(log: Path, *args: Any) -> int:
    """Call `go_until` in a fresh process; return its exit code, -9 when it was killed.

    What it says goes to the end of `log`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["rloop.session.process", "doubles_scripted", "rloop.engines.native.engine"]
    )
    process = context.Process(target=_logged, args=(log, *args))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _logged(log: Path, *args: Any) -> None:
    sys.stdout = sys.stderr = log.open("a", buffering=1)
    os.dup2(sys.stderr.fileno(), 2)
    sys.exit(go_until(*args))


def files(run_dir: Path) -> dict[str, bytes]:
    """Return what every file of a run holds, hidden and left-over ones too, but for the exempt."""
    found = {str(p.relative_to(run_dir)): p for p in run_dir.rglob("*") if p.is_file()}
    return {name: found[name].read_bytes() for name in sorted(found) if not EXEMPT.fullmatch(name)}


def comparable(run_dir: Path) -> dict[str, Any]:
    """Return the files of a run, metrics without times, and the manifest without their digest."""
    found: dict[str, Any] = dict(files(run_dir))
    if "metrics.jsonl" in found:
        found["metrics.jsonl"] = logged(run_dir)
    if "manifest.json" in found:
        manifest = json.loads(found["manifest.json"])
        found["manifest.json"] = {k: manifest[k] for k in ("recipes", "phases", "in_progress")}
    return found
