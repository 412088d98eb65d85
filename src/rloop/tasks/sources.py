"""Where a task's rows come from: a file, the hub, an environment, or a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rloop.recipe.config import TaskConfig
from rloop.tasks.benchmarks import BENCHMARKS, read_benchmark, usual_split
from rloop.tasks.environments import environment_rows
from rloop.tasks.readers import Row, file_stem, read_hub_rows, read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows before anything is left out, and what the source itself says of them."""

    name: str
    split: str
    rows: Sequence[Row | None]
    """None where the source has a row without one clear answer."""
    fields: dict[str, str]
    verifier: str = ""
    """The one that the problems are made for; none for a user's own file."""


def read_source(config: TaskConfig, data_dir: str | None, *, held_out: bool) -> Source:
    """Return the rows of a file, the hub, an environment or a benchmark.

    `held_out` makes `test` the default split where there is one. Raises as `load_task` does.
    """
    kind, _, place = config.source.partition(":")
    if kind == "file":
        path = Path(place).expanduser()
        return Source(
            name=file_stem(path),
            split=config.split or "train",
            rows=read_rows(path),
            fields=config.fields,
        )
    if kind == "hub":
        split = config.split or "train"
        found = read_hub_rows(place, config.params.get("name"), split)
        return Source(name=place.rpartition("/")[2], split=split, rows=found, fields=config.fields)
    if kind == "verifiers":
        split = config.split or ("test" if held_out else "train")
        return Source(
            name=place.rpartition("/")[2],
            split=split,
            rows=environment_rows(place, config, split),
            fields={"problem": "problem", "answer": "answer"},
            verifier="rubric",
        )
    split = config.split or usual_split(kind, held_out=held_out)
    rows, fields = read_benchmark(kind, split, data_dir)
    return Source(
        name=kind,
        split=split,
        rows=rows,
        fields={**fields, **config.fields},
        verifier=BENCHMARKS[kind].verifier,
    )
