"""The table at the end of a run: every policy that was measured, task by task."""

from collections.abc import Mapping
from pathlib import Path

from rloop.observe.run_log import read_metrics

Row = Mapping[str, object]


def final_rows(run_dir: Path) -> list[Row]:
    """Return the evaluations of whole policies in the order in which they were made.

    Evaluations inside an exploration are curves, not rows; of an explored policy only the last
    counts.
    """
    latest: dict[str, Row] = {}
    for line in read_metrics(run_dir):
        if line["phase"] == "evaluate":
            latest[str(line["policy"])] = line
    return list(latest.values())
