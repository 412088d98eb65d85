"""Other trackers that metrics go to: TensorBoard, Weights & Biases, trackio, MLflow.

Each is imported only when the recipe's `sinks` names it. A run that is resumed goes on in the same
tracker run, whose id lies in the run directory's `sink_id`.
"""

import contextlib
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from rloop.errors import ConfigError

PROJECT = "rloop"
"""Project (experiment, for MLflow) that runs are filed under."""

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where metrics go besides `metrics.jsonl`."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log finite values at a global step, which never falls but where a run was resumed."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class TensorBoard:
    """Event files in `RUN/tensorboard`; needs no torch."""

    def __init__(self, run_dir: Path) -> None:
        """Open a new event file."""
        self._writer = _load("tensorboard", "tensorboard.summary").Writer(
            str(run_dir / "tensorboard")
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a scalar for each value."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandB:
    """A W&B run; WANDB_MODE=offline keeps it in `RUN/wandb`."""

    def __init__(self, run_dir: Path) -> None:
        """Start the run, or go on with it."""
        wandb = _load("wandb", "wandb")
        try:
            self._run = wandb.init(
                project=PROJECT,
                name=run_dir.name,
                id=_sink_id(run_dir),
                dir=str(run_dir),
                config=_config(run_dir),
                resume="allow",
            )
        except wandb.Error as error:
            raise ConfigError(
                f"sinks: W&B did not start ({error}). Log in with `wandb login`, or set "
                "WANDB_MODE=offline."
            ) from error
        # W&B drops values at a step below its own, and a resumed run repeats some.
        self._run.define_metric("*", step_metric="global_step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values with their step as one more value."""
        self._run.log({**values, "global_step": step})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Trackio:
    """A trackio run on this machine, or where TRACKIO_SPACE_ID says."""

    def __init__(self, run_dir: Path) -> None:
        """Start the run, or go on with it."""
        trackio = _load("trackio", "trackio")
        with contextlib.redirect_stdout(sys.stderr):
            self._run = trackio.init(
                project=PROJECT,
                name=f"{run_dir.name}-{_sink_id(run_dir)[:8]}",
                config=_config(run_dir),
                resume="allow",
                embed=False,
            )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


class MLflow:
    """An MLflow run where MLFLOW_TRACKING_URI says, else where MLflow itself would put it."""

    def __init__(self, run_dir: Path) -> None:
        """Start the run, or go on with it."""
        self._mlflow = _load("mlflow", "mlflow")
        client = self._client = self._mlflow.MlflowClient()
        try:
            experiment = client.get_experiment_by_name(PROJECT)
            number = experiment.experiment_id if experiment else client.create_experiment(PROJECT)
            name, tag = run_dir.name, _sink_id(run_dir)
            found = client.search_runs([number], f"tags.`rloop.run` = '{tag}'", max_results=1)
            run = found[0] if found else None
            if run is None:
                run = client.create_run(number, run_name=name, tags={"rloop.run": tag})
            self._run_id = run.info.run_id
            client.update_run(self._run_id, status="RUNNING")
        except self._mlflow.exceptions.MlflowException as error:
            raise ConfigError(
                f"sinks: MLflow did not start ({error}). Set MLFLOW_TRACKING_URI to a server, or "
                "to sqlite:///mlflow.db."
            ) from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values; a server that is away for a while costs points, not the run."""
        now = int(1000 * time.time())
        metrics = [
            # MLflow refuses "@" and the like in names.
            self._mlflow.entities.Metric(re.sub(r"[^\w./ -]", "_at_", key), float(value), now, step)
            for key, value in values.items()
        ]
        try:
            self._client.log_batch(self._run_id, metrics=metrics)
        except self._mlflow.exceptions.MlflowException as error:
            _log.warning("MLflow took no metrics at step %d: %s", step, error)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run_id)


_SINKS: dict[str, Callable[[Path], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
    "mlflow": MLflow,
}


def open_sinks(names: Sequence[str], run_dir: Path) -> list[Sink]:
    """Return the trackers of those names, each for this run.

    Raises ConfigError, with the command that installs it, for one whose package is missing.
    """
    return [_SINKS[name](run_dir) for name in names]


def _load(extra: str, module: str) -> Any:  # noqa: ANN401 (a foreign module)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"sinks: {extra} needs a package that is not here ({error.name}). Install it: "
            f'pip install "rloop-rl[{extra}]"'
        ) from error


def _sink_id(run_dir: Path) -> str:
    """Return the run's id at the trackers, made on first use."""
    path = run_dir / "sink_id"
    if not path.exists():
        path.write_text(f"{uuid.uuid4().hex}\n")
    return path.read_text().strip()


def _config(run_dir: Path) -> dict[str, Any]:
    """Return the resolved recipe for the tracker to show."""
    path = run_dir / "config.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
