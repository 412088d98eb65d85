"""rloop from Python: start a run, continue one, and read what a run directory holds.

What the command line does, with the same recipes and the same files. Nothing heavy is imported
until a run starts.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import yaml

from rloop import run_directory
from rloop.check.starter import starter_recipe
from rloop.errors import ConfigError, DegenerateRun
from rloop.observe.columns import HEADINGS, final_table
from rloop.observe.run_log import final_rows
from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe, load_text
from rloop.recipe.packaged import find_recipe
from rloop.report.export import best_policy, finished_policies
from rloop.report.page import write_report
from rloop.store.trajectories import open_store
from rloop.threads import set_threads
from rloop.types import PhaseName

INTERRUPTED = 130


class Run:
    """A run directory, while it is written or afterwards.

    Example: Run("runs/demo").metrics("evaluate")[-1]["evaluate/gsm8k/pass@8"]
    """

    def __init__(self, directory: str | Path) -> None:
        """Name the directory; StoreError for one that is no run's."""
        self.directory = Path(directory)
        self.record()

    def record(self) -> run_directory.Run:
        """Return the run's small files as they are now: config, manifest, logs, phases, budgets."""
        return run_directory.read_run(self.directory)

    @property
    def is_complete(self) -> bool:
        """Whether the run has reached its end."""
        return self.record().is_complete

    def policies(self) -> dict[str, Path]:
        """Return the policies that are in the directory, by name, in the order they were made."""
        return finished_policies(self.record())

    def policy(self, name: str = "final") -> Path:
        """Return the Hugging Face directory of `base`, `iter-001`, ...; `final` is the last policy.

        `best` has the highest `best_by` of the recipe, which is too high for being chosen by
        it. ConfigError for a name that the run does not have.
        """
        found = self.policies()
        wanted = list(found)[-1] if name == "final" and found else name
        if name == "best" and name not in found:
            wanted = best_policy(self.record())
        if wanted not in found:
            names = ", ".join(found) or "none yet"
            raise ConfigError(f"{self.directory} has no policy {name!r}; it has {names}.")
        return found[wanted]

    def metrics(self, phase: PhaseName | None = None) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, of one phase or of all: rows for a data frame.

        Raises ConfigError for a phase that there is not.

        Example: pandas.DataFrame(run.metrics("explore")).plot(y="explore/reward_mean")
        """
        _check_phase(phase)
        record = self.record()
        return record.metrics if phase is None else record.rows(phase)

    def trajectories(
        self,
        columns: Sequence[str] = (),
        *,
        phase: PhaseName | None = None,
        iteration: int | None = None,
    ) -> pa.Table:
        """Return a row for each completion that a policy wrote; all columns where none is named.

        Raises ConfigError for a phase that there is not.

        Example: run.trajectories(["question", "completion_text", "verdict"]).to_pandas()
        """
        _check_phase(phase)
        store = open_store(self.directory)
        names = list(columns) or ["*"]
        place = {"phase": phase, "iteration": iteration}
        wanted = [f"{key} = {_sql(value)}" for key, value in place.items() if value is not None]
        where = f" where {' and '.join(wanted)}" if wanted else ""
        listed = ", ".join(name if name == "*" else f'"{name}"' for name in names)
        return store.query(f"select {listed} from trajectories{where}")

    def sql(self, query: str) -> pa.Table:
        """Return the rows of a SELECT over the tables `trajectories` and `groups`.

        Example: run.sql("select step, avg(reward) from trajectories group by step order by step")
        """
        return open_store(self.directory).query(query)

    def report(self) -> Path:
        """Write the report, one page that opens in a browser, and return where it is."""
        return write_report(self.directory)

    def __repr__(self) -> str:
        """Return how the run is made again in Python."""
        return f"rloop.Run({str(self.directory)!r})"

    def _repr_html_(self) -> str:
        """Return how each policy did, for a notebook."""
        rows = [HEADINGS, *final_table(final_rows(self.directory))]
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
        table = "".join(f"<tr>{line}</tr>" for line in cells)
        return f"<code>{escape(str(self.directory))}</code><table>{table}</table>"


def train(  # noqa: PLR0913 (all but one are keywords)
    recipe: str | Path | Mapping[str, Any] | None = None,
    *,
    model: str | None = None,
    task: str | Sequence[str] = (),
    data: str | Path | None = None,
    verifier: str | None = None,
    iterations: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
) -> Run:
    """Train by a recipe (a file, a name of `rloop recipes`, or a dict), or a model on problems.

    Without a recipe, `model` with `task` (names such as `gsm8k`) or `data` (a CSV, JSON lines or
    parquet file) makes one, with values for this machine. `overrides` change values by their dotted
    keys. The run lies in `out`, a new directory, else in runs/NAME; what is there already is
    continued by `resume`.

    Raises ConfigError, TaskError or EngineError for what cannot run, DegenerateRun where there is
    nothing to learn from, KeyboardInterrupt after a clean stop.

    Example: rloop.train(model="Qwen/Qwen2.5-1.5B-Instruct", task="gsm8k", iterations=3)
    """
    changes = dict(overrides or {}) | ({} if iterations is None else {"iterations": iterations})
    values = _assignments(changes)
    sources = [task] if isinstance(task, str) and task else list(task)
    sources += [f"file:{data}"] if data is not None else []
    if recipe is not None and (model or sources or verifier):
        raise ConfigError("Give a recipe, or model with task or data, not both.")
    text: str | None = None
    path = Path("recipe.yaml")
    if isinstance(recipe, str | Path):
        path = find_recipe(Path(recipe))
        loaded = load_recipe(path, values)
    else:
        text = (
            starter_recipe(model or "", sources, verifier=verifier, overrides=values)
            if recipe is None
            else yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
        )
        loaded = load_text(text, () if recipe is None else values)
    return _start(path, loaded, Path(out or Path("runs") / loaded.name), text)


def resume(directory: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Run:
    """Continue an interrupted run at its last saved point, or give a complete one more.

    Raises what `train` raises.

    Example: rloop.resume("runs/demo", overrides={"iterations": 4})
    """
    set_threads()
    from rloop.engines.registry import build_engine
    from rloop.session.process import resume as resume_run

    run_dir = Path(directory)
    code = resume_run(run_dir, build_engine, overrides=_assignments(overrides or {}))
    return _ended(code, run_dir)


def _start(path: Path, recipe: Recipe, run_dir: Path, text: str | None) -> Run:
    set_threads()
    from rloop.engines.registry import build_engine
    from rloop.session.process import start

    return _ended(start(path, recipe, run_dir, build_engine, text=text), run_dir)


def _check_phase(phase: str | None) -> None:
    if phase is not None and phase not in get_args(PhaseName):
        choices = ", ".join(get_args(PhaseName))
        raise ConfigError(f"phase {phase!r} is unknown. Choose one of {choices}.")


def _ended(code: int, run_dir: Path) -> Run:
    """Return the run; raise where it has not come to its end."""
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise DegenerateRun(
            f"The run in {run_dir} stopped early; its last line says why. What it has done is in "
            f"rloop.Run({str(run_dir)!r})."
        )
    return Run(run_dir)


def _assignments(values: Mapping[str, Any]) -> list[str]:
    """Return values as `a.b=value`. Example: ['explore.steps=4'] of {"explore.steps": 4}."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _sql(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
