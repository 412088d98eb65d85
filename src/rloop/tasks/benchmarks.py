"""Published problem sets by plain name: a file in a data folder, else a data set on the hub."""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rloop.errors import ConfigError, TaskError
from rloop.tasks.readers import SUFFIXES, Row, file_stem, read_hub_rows, read_rows
from rloop.tasks.solutions import boxed_answer

SOURCE_KINDS = ("file", "hub", "reasoning_gym", "verifiers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Where a published problem set is found and how its rows read.

    Example: BENCHMARKS["gsm8k"].files["train"] == "gsm8k_train"
    """

    files: Mapping[str, str]
    """Split -> file name in the data folder, without its suffix. The first split is the default."""
    hub: str
    """Name on the hub."""
    verifier: str = "math"
    config: str | None = None
    """Configuration on the hub."""
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    """Our split -> the hub's, where they differ."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """`problem`, `answer`, `solution`, `id` -> the hub's column, where they differ."""
    convert: Callable[[Row], Row | None] = dict
    """What else a hub row needs before its columns are read; None where it has no one answer."""


def _gsm8k_row(row: Row) -> Row | None:
    """Part "reasoning #### 42" into solution and answer."""
    solution, mark, answer = row["answer"].rpartition("####")
    return {**row, "solution": solution.strip(), "answer": answer.strip()} if mark else None


def _boxed_row(row: Row) -> Row | None:
    r"""Take the answer from the solution's \boxed{}."""
    answer = boxed_answer(row["solution"])
    return None if answer is None else {**row, "answer": answer}


def _asdiv_row(row: Row) -> Row | None:
    """Join body and question, and leave the unit out of "9 (apples)"."""
    answer, _, _ = row["answer"].partition(" (")
    several = ";" in row["answer"]
    return (
        None
        if several
        else {**row, "problem": f"{row['body']} {row['question']}", "answer": answer}
    )


def _svamp_row(row: Row) -> Row:
    """Join body and question."""
    return {**row, "problem": f"{row['Body'].rstrip('. ')}. {row['Question']}"}


BENCHMARKS: Mapping[str, Benchmark] = {
    "aime24": Benchmark(
        files={"test": "aime24"}, hub="HuggingFaceH4/aime_2024", hub_splits={"test": "train"}
    ),
    "aime25": Benchmark(files={"test": "aime25"}, hub="math-ai/aime25"),
    "amc23": Benchmark(
        files={"test": "amc23"}, hub="math-ai/amc23", fields={"problem": "question"}
    ),
    "asdiv": Benchmark(
        files={"test": "asdiv"},
        hub="EleutherAI/asdiv",
        hub_splits={"test": "validation"},
        fields={"problem": "problem"},
        convert=_asdiv_row,
        verifier="numeric",
    ),
    "dapo_math_17k": Benchmark(
        files={"train": "dapo_math_17k"},
        hub="open-r1/DAPO-Math-17k-Processed",
        config="all",
        fields={"problem": "prompt", "answer": "solution"},
    ),
    "gsm8k": Benchmark(
        files={"train": "gsm8k_train", "test": "gsm8k_test"},
        hub="openai/gsm8k",
        config="main",
        fields={"problem": "question"},
        convert=_gsm8k_row,
        verifier="numeric",
    ),
    "math": Benchmark(
        files={"train": "math_train7474", "test": "math_test5000"},
        hub="DigitalLearningGmbH/MATH-lighteval",
        convert=_boxed_row,
    ),
    "math500": Benchmark(
        files={"test": "math500"}, hub="HuggingFaceH4/MATH-500", fields={"id": "unique_id"}
    ),
    "mawps": Benchmark(
        files={"test": "mawps"},
        hub="MU-NLPC/Calc-mawps",
        fields={"problem": "question", "answer": "result"},
        verifier="numeric",
    ),
    "minerva_math": Benchmark(
        files={"test": "minerva_math"},
        hub="math-ai/minervamath",
        fields={"problem": "question"},
    ),
    "omni_math": Benchmark(files={"test": "omni_math_rule"}, hub="KbsdJames/Omni-MATH"),
    "svamp": Benchmark(
        files={"test": "svamp"},
        hub="ChilleD/SVAMP",
        fields={"answer": "Answer", "id": "ID"},
        convert=_svamp_row,
        verifier="numeric",
    ),
}


def check_source(source: str) -> None:
    """Raise a ConfigError that names the choices unless a task's `source` is of a known kind."""
    kind, _, place = source.partition(":")
    if (kind in SOURCE_KINDS) if place else (kind in BENCHMARKS):
        return
    near = difflib.get_close_matches(source, BENCHMARKS, n=1)
    near = [f"file:{source}"] if Path(source).is_file() else near
    guess = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"source {source!r} is unknown.{guess} Write reasoning_gym:DATASET, file:PATH, "
        f"hub:OWNER/NAME, verifiers:ENVIRONMENT or one of {', '.join(BENCHMARKS)}."
    )


def usual_split(name: str, *, held_out: bool) -> str:
    """Return a benchmark's split where the recipe names none: `test` for held-out problems."""
    files = BENCHMARKS[name].files
    return "test" if held_out and "test" in files else next(iter(files))


def read_benchmark(
    name: str, split: str, data_dir: str | None
) -> tuple[list[Row | None], Mapping[str, str]]:
    """Read a benchmark's file if the data folder has it, else its data set on the hub.

    Return its rows, None for one without one clear answer, and which columns hold what.
    """
    benchmark = BENCHMARKS[name]
    folder = data_dir or os.environ.get("RLOOP_DATA")
    path = _benchmark_file(folder, benchmark.files.get(split))
    if path is not None:
        return [_without_prefix(row, file_stem(path)) for row in read_rows(path)], {}
    try:
        rows = read_hub_rows(
            benchmark.hub, benchmark.config, benchmark.hub_splits.get(split, split)
        )
        return _convert(rows, benchmark), benchmark.fields
    except TaskError as error:
        where = f"in {folder}" if folder else "(neither tasks.data_dir nor RLOOP_DATA is set)"
        stem = benchmark.files.get(split, f"{name}_{split}")
        raise TaskError(f"{name}: no file {stem}.jsonl.gz {where}, and {error}") from error


def check_folder(folder: str, setting: str) -> None:
    """Raise TaskError unless the folder of benchmark files is there; `setting` names it."""
    if not Path(folder).expanduser().is_dir():
        raise TaskError(
            f"{setting} is {folder!r}, which is not a folder: set it to the folder with "
            "the benchmark files"
        )


def _benchmark_file(folder: str | None, stem: str | None) -> Path | None:
    if folder is None:
        return None
    check_folder(folder, "the variable RLOOP_DATA")
    paths = [Path(folder).expanduser() / f"{stem}{suffix}" for suffix in SUFFIXES] if stem else []
    return next((path for path in paths if path.is_file()), None)


def _without_prefix(row: Row, stem: str) -> Row:
    """Shorten an id such as gsm8k_train/17, whose first part the task and split already say."""
    key = row.get("id")
    return {**row, "id": key.removeprefix(f"{stem}/")} if isinstance(key, str) else row


def _convert(rows: Sequence[Row], benchmark: Benchmark) -> list[Row | None]:
    """Return a hub's rows as the benchmark reads them; TaskError where its columns are others."""
    try:
        return [benchmark.convert(row) for row in rows]
    except (KeyError, AttributeError, TypeError) as error:
        raise TaskError(
            f"hub:{benchmark.hub} has columns or values that rloop does not know "
            f"({error!r}); it has "
            f"{', '.join(rows[0])}. Read it with source: hub:{benchmark.hub} and fields"
        ) from error
