"""Other trackers that metrics go to: TensorBoard, Weights & Biases, trackio, MLflow.

Each is imported only if the recipe's `sinks` names it, and keeps its files where it usually does
(`docs/how-to/trackers.md`). A resumed run continues in the same tracker run, whose id is in the run
directory's `sink_id`. If a tracker fails, its points are lost, never the run.
"""

import json
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from rloop.errors import ConfigError
from rloop.observe.metric_keys import flatten
from rloop.types import Trajectory

PROJECT = "rloop"
"""Project of the runs (for MLflow the experiment)."""
REST_S = 60.0
"""A tracker that failed is left alone for this long, because each try may wait for a server."""
PARAMS_PER_CALL = 100
"""Most values that MLflow takes at once."""

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where metrics go besides `metrics.jsonl`."""

    def write(
        self, step: int, values: Mapping[str, float], completions: Sequence[Trajectory] = ()
    ) -> None:
        """Log finite values, and some completions, at a global step, which never decreases."""
        ...

    def close(self) -> None:
        """Send what is pending, and close."""
        ...


class TensorBoard:
    """Event files in `RUN/tensorboard`; needs no torch."""

    def __init__(self, run_dir: Path) -> None:
        """Open a new event file."""
        self._writer = _load("tensorboard", "tensorboard.summary").Writer(
            str(run_dir / "tensorboard")
        )

    def write(
        self, step: int, values: Mapping[str, float], completions: Sequence[Trajectory] = ()
    ) -> None:
        """Add a scalar for each value; completions are left to `rloop view`."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandB:
    """A W&B run, in `RUN/wandb`; WANDB_MODE=offline keeps it there."""

    def __init__(self, run_dir: Path) -> None:
        """Start the run, or continue it."""
        # Where it prepares tables for upload; its default is the home directory.
        os.environ.setdefault("WANDB_DATA_DIR", str(run_dir / "wandb"))
        wandb = _load("wandb", "wandb")
        self._wandb = wandb
        with _without_terminal():
            self._run = wandb.init(
                project=PROJECT,
                name=run_dir.name,
                id=_sink_id(run_dir),
                dir=str(run_dir),
                notes=_note(run_dir),
                config=_config(run_dir),
                resume="allow",
            )
        # W&B's own step counts calls of log.
        self._run.define_metric("*", step_metric="global_step")

    def write(
        self, step: int, values: Mapping[str, float], completions: Sequence[Trajectory] = ()
    ) -> None:
        """Log the values with their step as one more value, and completions as a table."""
        table: dict[str, Any] = {}
        if completions:
            rows = [_shown(trajectory) for trajectory in completions]
            cells = [list(row.values()) for row in rows]
            table["completions"] = self._wandb.Table(columns=list(rows[0]), data=cells)
        self._run.log({**values, **table, "global_step": step})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Trackio:
    """A trackio run in the folder TRACKIO_DIR, or in the Space TRACKIO_SPACE_ID."""

    def __init__(self, run_dir: Path) -> None:
        """Start the run, or go on with it."""
        self._trackio = _load("trackio", "trackio")
        with redirect_stdout(sys.stderr):
            self._run = self._trackio.init(
                project=PROJECT,
                name=f"{run_dir.name}-{_sink_id(run_dir)[:8]}",
                config=_config(run_dir),
                resume="allow",
                embed=False,
            )

    def write(
        self, step: int, values: Mapping[str, float], completions: Sequence[Trajectory] = ()
    ) -> None:
        """Log the values, and completions as traces."""
        traces = [
            self._trackio.Trace(
                messages=[
                    {"role": "user", "content": trajectory.completion.prompt_text},
                    {"role": "assistant", "content": trajectory.completion.completion_text},
                ],
                metadata=_shown(trajectory),
            )
            for trajectory in completions
        ]
        self._run.log({**values, **({"completions": traces} if traces else {})}, step=step)

    def close(self) -> None:
        """Finish the run through the module, which would otherwise finish it again at exit."""
        with redirect_stdout(sys.stderr):
            self._trackio.finish()


class MLflow:
    """An MLflow run at MLFLOW_TRACKING_URI, else at MLflow's own default."""

    def __init__(self, run_dir: Path) -> None:
        """Start the run, or go on with it."""
        # Its usage statistics need a network, and its seven tries would delay the run for minutes.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._mlflow = _load("mlflow", "mlflow")
        client = self._client = self._mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else client.create_experiment(PROJECT)
        tag = _sink_id(run_dir)
        found = client.search_runs([number], f"tags.`rloop.run` = '{tag}'", max_results=1)
        if found:
            self._run_id = found[0].info.run_id
            client.update_run(self._run_id, status="RUNNING")
        else:
            tags = {"rloop.run": tag, "mlflow.note.content": _note(run_dir)}
            run = client.create_run(number, run_name=run_dir.name, tags=tags)
            self._run_id = run.info.run_id
            self._write_params(_config(run_dir))

    def write(
        self, step: int, values: Mapping[str, float], completions: Sequence[Trajectory] = ()
    ) -> None:
        """Log the values; completions are left to `rloop view`."""
        now = int(1000 * time.time())
        self._client.log_batch(
            self._run_id,
            metrics=[
                self._mlflow.entities.Metric(_mlflow_name(key), float(value), now, step)
                for key, value in values.items()
            ],
        )

    def close(self) -> None:
        """Mark the run as finished."""
        with redirect_stdout(sys.stderr):
            self._client.set_terminated(self._run_id)

    def _write_params(self, config: Mapping[str, Any]) -> None:
        params = [
            self._mlflow.entities.Param(
                _mlflow_name(key),
                value if isinstance(value, str) and value else json.dumps(value),
            )
            for key, value in flatten(config).items()
        ]
        for start in range(0, len(params), PARAMS_PER_CALL):
            self._client.log_batch(self._run_id, params=params[start : start + PARAMS_PER_CALL])


class Guarded:
    """A tracker that may fail: one warning is logged, and the run continues without its points."""

    def __init__(
        self, name: str, sink: Sink, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Guard the sink of that name; `clock` gives seconds."""
        self._name = name
        self._sink = sink
        self._clock = clock
        self._rests_until = -float("inf")
        self._has_warned = False

    def write(
        self, step: int, values: Mapping[str, float], completions: Sequence[Trajectory] = ()
    ) -> None:
        """Write, unless the tracker failed less than `REST_S` ago."""
        if self._clock() < self._rests_until:
            return
        try:
            self._sink.write(step, values, completions)
        except Exception as error:  # noqa: BLE001 -- foreign code, and whatever it meets
            self._rests_until = self._clock() + REST_S
            self._warn(f"failed to log metrics at step {step}", error)

    def close(self) -> None:
        """Close the tracker."""
        try:
            self._sink.close()
        except Exception as error:  # noqa: BLE001 -- foreign code, and whatever it meets
            self._warn("failed to close", error)

    def _warn(self, what: str, error: Exception) -> None:
        if not self._has_warned:
            _log.warning(
                "%s %s (%s). The run continues; metrics.jsonl has every number.",
                self._name,
                what,
                _reason(error),
            )
        self._has_warned = True


_SINKS: dict[str, tuple[Callable[[Path], Sink], str]] = {
    "tensorboard": (TensorBoard, "The run directory must be writable."),
    "wandb": (WandB, "Log in with `wandb login`, or set WANDB_MODE=offline."),
    "trackio": (Trackio, "Set TRACKIO_DIR to a writable folder."),
    "mlflow": (
        MLflow,
        "Set MLFLOW_TRACKING_URI to a server that answers, or to sqlite:///mlflow.db, which "
        'mlflow-skinny cannot write: pip install "rloop-rl[mlflow]".',
    ),
}
"""Name in the recipe -> the tracker, and what to do if it does not start."""


def open_sinks(names: Sequence[str], run_dir: Path) -> list[Sink]:
    """Return the trackers of those names, each for this run.

    Raises ConfigError if one does not start: with the install command if its package is missing,
    else with its own reason.
    """
    return [_open(name, run_dir) for name in names]


def _open(name: str, run_dir: Path) -> Guarded:
    tracker, remedy = _SINKS[name]
    try:
        return Guarded(name, tracker(run_dir))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"sinks: {name} did not start ({_reason(error)}). {remedy}") from error


def _load(extra: str, module: str) -> Any:  # noqa: ANN401 (a foreign module)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"sinks: {extra} needs a package that is not installed ({error.name}). Install it: "
            f'pip install "rloop-rl[{extra}]"'
        ) from error


def _reason(error: Exception) -> str:
    """Return the first sentence of an error's message, or its type if it has none."""
    lines = str(error).strip().splitlines()
    return re.split(r"(?<=\w)[.;] ", lines[0])[0].rstrip(".") if lines else type(error).__name__


@contextmanager
def _without_terminal() -> Iterator[None]:
    """Hide standard input: W&B prompts for an account at a terminal, and a run never prompts."""
    stdin = sys.stdin
    with open(os.devnull) as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = stdin


def _shown(trajectory: Trajectory) -> dict[str, str | float | None]:
    """Return a trajectory's values for a table, by column."""
    return {
        "problem": trajectory.problem.problem_id,
        "prompt": trajectory.completion.prompt_text,
        "completion": trajectory.completion.completion_text,
        "finish_reason": trajectory.completion.finish_reason,
        "verdict": trajectory.verdict.kind,
        "answer": trajectory.verdict.answer,
        "reference": trajectory.problem.answer,
        "reward": trajectory.reward,
    }


def _sink_id(run_dir: Path) -> str:
    """Return the run's id for trackers, created on first use."""
    path = run_dir / "sink_id"
    # Empty if the process that created it was killed before it wrote.
    found = path.read_text().strip() if path.exists() else ""
    if not found:
        found = uuid.uuid4().hex
        path.write_text(f"{found}\n")
    return found


def _config(run_dir: Path) -> dict[str, Any]:
    """Return the resolved recipe for the tracker to show."""
    path = run_dir / "config.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _note(run_dir: Path) -> str:
    return f"Trajectories and report.html: {run_dir}"


def _mlflow_name(key: str) -> str:
    """Return a key without characters that MLflow refuses: pass@8 becomes pass_at_8."""
    return re.sub(r"[^\w./: -]", "_", key.replace("@", "_at_"))
