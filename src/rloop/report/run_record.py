"""What a run directory says about its run, read without judging it; knows files, not charts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rloop.errors import StoreError
from rloop.observe.run_log import read_lines, read_metrics
from rloop.store.records import check_logged, read_object, read_record

FILES = ("recipe.yaml", "config.json", "manifest.json", "metrics.jsonl")

Row = dict[str, Any]
"""One JSON object of a log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The small files of a run directory; a file that is not there yet is empty.

    Example: RunRecord(directory=Path("runs/demo"), recipe_text="name: demo",
    config={"name": "demo"}, environment={}, manifest={"phases": {}},
    metrics=[{"iteration": 0, "phase": "evaluate", ...}], events=[])
    """

    directory: Path
    recipe_text: str
    config: Row
    environment: Row
    manifest: Row
    metrics: list[Row]
    events: list[Row]

    def rows(self, phase: str) -> list[Row]:
        """Return the metrics lines of a phase, in the order in which they were written."""
        return [row for row in self.metrics if row.get("phase") == phase]

    def is_complete(self, key: str) -> bool:
        """Whether the manifest has the phase (`2/finetune`, `2/evaluate/iter-002`) as complete."""
        return key in self.manifest.get("phases", {})

    @property
    def is_plain_rl(self) -> bool:
        """Whether RL's own weights are what an iteration goes on with."""
        return self.config.get("finetune") is None

    @property
    def is_evaluation(self) -> bool:
        """Whether it is the directory of `rloop eval`: measured, never trained."""
        return bool(self.config) and self.is_complete("0/evaluation")

    @property
    def confidence(self) -> float:
        """Of every interval of the run."""
        return float(self.config.get("evaluate", {}).get("confidence", 0.95))

    @property
    def name(self) -> str:
        """Name of the run; of an evaluation, what was measured."""
        if self.is_evaluation:
            return f"Evaluation of {Path(self.config['policy']['path']).name}"
        return str(self.config.get("name") or self.directory.name)


def read_run(run_dir: Path) -> RunRecord:
    """Read the small files of a run directory; a torn last line of a log is left out."""
    if not any((run_dir / name).exists() for name in FILES):
        raise StoreError(
            f"{run_dir} is not a run directory: it has none of {', '.join(FILES)}. "
            "Name the folder that `rloop run` wrote."
        )
    recipe, manifest = run_dir / "recipe.yaml", _optional(run_dir / "manifest.json", read_record)
    check_logged(run_dir, manifest)
    return RunRecord(
        directory=run_dir,
        recipe_text=recipe.read_text(errors="replace") if recipe.exists() else "",
        config=_optional(run_dir / "config.json", read_object),
        environment=_optional(run_dir / "environment.json", read_object),
        manifest=manifest,
        metrics=read_metrics(run_dir),
        events=read_lines(run_dir / "events.jsonl"),
    )


def _optional(path: Path, read: Callable[[Path], Row]) -> Row:
    return read(path) if path.exists() else {}
