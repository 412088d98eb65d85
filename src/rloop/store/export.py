"""Trajectories out of a run, in the forms that other tools read: one table, a data set of Hugging
Face `datasets`, what TRL trains on, or logs of inspect_ai.

Nothing is overwritten, and what is written is whole or not there.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rloop.disk import new_path
from rloop.errors import ConfigError, EngineError, StoreError
from rloop.policies.model_files import read_tokenizer
from rloop.policies.prompts import PromptText
from rloop.recipe.config import PromptConfig
from rloop.store import export_formats as formats
from rloop.store.dataset_card import TRL_USAGE, Part, dataset_card
from rloop.store.expert import EXAMPLES, stream_examples
from rloop.store.records import read_object
from rloop.store.schema import SCHEMA
from rloop.store.trajectories import TrajectoryStore, open_store
from rloop.types import PhaseName, Problem

Format = Literal["table", "datasets", "trl", "inspect"]
Select = Literal["all", "correct", "expert"]
GROUP_ROWS = 2**14
MAX_ROWS = 2**31 - 1
"""Of a file, as pyarrow counts them."""
SHARD_BYTES = 2**29
"""A shard of several, before compression."""
SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}
_DESCRIPTIONS = {
    "all": "Everything that was sampled in exploration and evaluations, correct or not.",
    "correct": "Completions that were judged correct and were not truncated.",
    "expert": "The expert sets: the examples selected for fine-tuning, with their weights.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """Which trajectories: all, the successes (correct and stopped), or the expert sets.

    Example: Selected(run_dir=Path("runs/demo"), select="expert", iteration=2)
    """

    run_dir: Path
    select: Select = "all"
    iteration: int | None = None
    """All iterations when None."""

    @property
    def store(self) -> TrajectoryStore:
        """The run's store; StoreError when it is no run directory."""
        return open_store(self.run_dir)

    @property
    def config(self) -> dict[str, Any]:
        """The run's resolved recipe; empty where it has none."""
        path = self.run_dir / "config.json"
        return read_object(path) if path.exists() else {}

    @property
    def schema(self) -> pa.Schema:
        """The columns of `tables`; expert sets have `weight` and no `schema_version`."""
        return EXAMPLES if self.select == "expert" else SCHEMA

    def verifiers(self) -> dict[str, str]:
        """Return name and version of what judged each task's trajectories."""
        found = self.store.query(
            "select task, string_agg(distinct verifier_version, ', ' order by verifier_version) "
            "as verifier from trajectories group by task order by task"
        )
        return {row["task"]: row["verifier"] for row in found.to_pylist()}

    def tables(self, phase: PhaseName | None = None) -> Iterator[pa.Table]:
        """Yield them in the order written, a part at a time; of one phase or of all."""
        if self.select == "expert":
            if phase in (None, "explore"):
                yield from stream_examples(self.run_dir, self.iteration)
            return
        for part in self.store.stream(iteration=self.iteration, phase=phase):
            if self.select == "correct":
                is_stopped = pc.equal(part["finish_reason"], "stop")
                part = part.filter(pc.and_(part["correct"], is_stopped))
            yield part

    def nothing(self, phase: PhaseName | None = None) -> StoreError:
        """Return the error for a selection without a single trajectory, of a phase or of all."""
        if self.select == "expert":
            return StoreError(
                f"{self.run_dir} has no expert set: nothing was selected yet, or its recipe "
                "selects nothing. Use --select correct."
            )
        where = "" if self.iteration is None else f" of iteration {self.iteration}"
        what = "correct trajectory" if self.select == "correct" else "trajectory"
        of = "" if phase is None else f" of phase {phase}"
        return StoreError(f"{self.run_dir} has no {what}{of}{where} to export.")


def export_trajectories(
    run_dir: Path,
    target: Path,
    form: Format = "table",
    select: Select | None = None,
    iteration: int | None = None,
) -> int:
    """Write the chosen trajectories to a new file or folder; return how many.

    `table` is one .parquet, .jsonl or .csv file; the others are folders. TRL gets what
    exploration sampled, never held-out problems, and besides it the problems as RL prompts.
    """
    if form == "trl" and select == "all":
        raise ConfigError(
            "--format trl is used as training data, so --select must be correct or expert, not all."
        )
    if form == "inspect" and select == "expert":
        raise ConfigError("--format inspect shows whole groups; --select must be all or correct.")
    if form == "table" and target.suffix not in SUFFIXES:
        raise ConfigError(
            f"{target} must end in one of {', '.join(SUFFIXES)}; for a folder give "
            "--format datasets, trl or inspect."
        )
    default: Select = "correct" if form == "trl" else "all"
    selected = Selected(run_dir=run_dir, select=select or default, iteration=iteration)
    with new_path(target) as path:
        count = WRITERS[form](selected, path)
        if not count:
            raise selected.nothing("explore" if form == "trl" else None)
    return count


def write_file(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write a .parquet, .jsonl or .csv file; return the number of rows."""
    if path.suffix == ".parquet":
        count = write_shards(path.parent, path.stem, tables, schema, shard_bytes=2**62)
        if count:
            path.with_name(f"{path.stem}-00000.parquet").rename(path)
        return count
    failures: list[StoreError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for table in tables:
                yield from table.to_batches()
        except StoreError as error:  # DuckDB hands on its text only
            failures.append(error)
            raise

    name = str(path).replace("'", "''")
    with duckdb.connect() as connection:
        # One thread: the stream is read by one, and rows held back for their order cost memory.
        connection.execute("set threads = 1")
        connection.register("rows", pa.RecordBatchReader.from_batches(schema, batches()))
        try:
            copied = connection.execute(f"copy rows to '{name}' (format {SUFFIXES[path.suffix]})")
            return int(copied.fetchall()[0][0])
        except duckdb.Error as error:
            told = StoreError(f"{path.name} could not be written: {error}")
            raise (failures or [told])[0] from error


def write_shards(
    folder: Path,
    name: str,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Write `name-00000.parquet`, ... of about so many bytes each; return the number of rows.

    No file is written when there is no row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    filled = filter(len, tables)
    first = next(filled, None)
    if first is None:
        return 0
    limit = min(max(1, shard_bytes * len(first) // first.nbytes), MAX_ROWS)
    batches = (b for table in chain([first], filled) for b in table.cast(schema).to_batches())
    written: dict[int, int] = {}

    def note(file: Any) -> None:  # noqa: ANN401 (pyarrow has no types)
        written[int(Path(file.path).stem.rpartition("-")[2])] = file.metadata.num_rows

    ds.write_dataset(
        pa.RecordBatchReader.from_batches(schema, batches),
        folder,
        basename_template=f"{name}-{{i}}.parquet",
        format="parquet",
        file_options=ds.ParquetFileFormat().make_write_options(
            compression="zstd", write_page_checksum=True
        ),
        use_threads=False,
        max_rows_per_file=limit,
        max_rows_per_group=min(limit, GROUP_ROWS),
        min_rows_per_group=min(limit, GROUP_ROWS),
        file_visitor=note,
        existing_data_behavior="overwrite_or_ignore",
    )
    for number in written:
        (folder / f"{name}-{number}.parquet").rename(folder / f"{name}-{number:05d}.parquet")
    return sum(written.values())


def _table(selected: Selected, path: Path) -> int:
    return write_file(path, selected.tables(), selected.schema)


def _datasets(selected: Selected, folder: Path) -> int:
    """Write shards by phase and a card, as `datasets.load_dataset(folder)` opens them."""
    parts = []
    for split in ("explore", "evaluate"):
        count = write_shards(folder / "data", split, selected.tables(split), selected.schema)
        parts.append(Part("default", split, f"data/{split}-*.parquet", count, selected.schema))
    usage = f'Load it with `datasets.load_dataset("{folder.name}")`: a split for each phase.'
    return _finish(selected, folder, parts, usage)


def _trl(selected: Selected, folder: Path) -> int:
    """Write what to imitate, and every problem explored or held out as a prompt for RL."""
    chat, schema = _chat_of(selected), formats.trl_examples(selected.schema.empty_table()).schema
    tables = map(formats.trl_examples, selected.tables("explore"))
    count = write_shards(folder / "sft", "train", tables, schema)
    parts = [Part("sft", "train", "sft/train-*.parquet", count, schema)]
    condition = "" if selected.iteration is None else f"and iteration = {selected.iteration}"
    for split, phase in (("train", "explore"), ("test", "evaluate")):
        query = formats.PROBLEMS_SQL.format(phase=phase, condition=condition)
        table = formats.trl_problems(selected.store.query(query).to_pylist(), chat)
        count = write_shards(folder / "rl", split, [table], table.schema)
        parts.append(Part("rl", split, f"rl/{split}-*.parquet", count, table.schema))
    return _finish(selected, folder, parts, TRL_USAGE.format(name=folder.name))


def _inspect(selected: Selected, folder: Path) -> int:
    """Write a log for each policy, step and task; `inspect view --log-dir FOLDER` opens them."""
    chat, count = _chat_of(selected), 0
    folder.mkdir()
    for rows in _evaluations(selected):
        log = formats.inspect_log(rows, chat)
        name = f"{log['eval']['task_id']}-{rows[0]['policy']}-{rows[0]['task']}"
        safe = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in name)
        begun = log["eval"]["created"].replace(":", "-")
        path = folder / f"{begun}_{safe[:120]}_{count:08d}.json"
        path.write_text(json.dumps(log), encoding="utf-8")
        count += len(rows)
    return count


def _evaluations(selected: Selected) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each policy and task of a step together; a step is in memory at a time."""
    place, held = None, dict[tuple[str, str], list[dict[str, Any]]]()
    tables = (part.select(formats.INSPECT_COLUMNS) for part in selected.tables())
    for row in chain.from_iterable(part.to_pylist() for part in tables):
        if place != (place := (row["iteration"], row["phase"], row["step"])):
            yield from held.values()
            held = {}
        held.setdefault((row["policy"], row["task"]), []).append(row)
    yield from held.values()


WRITERS: Mapping[str, Callable[[Selected, Path], int]] = {
    "table": _table,
    "datasets": _datasets,
    "trl": _trl,
    "inspect": _inspect,
}


def _finish(selected: Selected, folder: Path, parts: list[Part], usage: str) -> int:
    """Write the card; return how many trajectories there are."""
    description = _DESCRIPTIONS[selected.select]
    if selected.iteration is not None:
        description += f" Iteration {selected.iteration} only."
    held = [part for part in parts if part.num_rows]
    text = dataset_card(held, selected.config, description, usage, selected.verifiers())
    (folder / "README.md").write_text(text, encoding="utf-8")
    return sum(part.num_rows for part in held if part.config != "rl")


def _chat_of(selected: Selected) -> formats.Chat:
    """Return how the run's chat template wraps a problem; an empty one where that is not known.

    Known when the recipe used the template of the model, a policy of the run has it, and the run's
    prompts look like it.
    """
    prompt = selected.config.get("prompt", {})
    found = sorted(selected.run_dir.glob("policies/*/tokenizer_config.json"))
    files = read_tokenizer(str(found[0].parent)) if found else None
    if files is None or prompt.get("template") is not None:
        return formats.Chat()
    system, mark = prompt.get("system"), "\x00problem\x00"
    config = PromptConfig.model_validate(prompt | {"suffix": ""})
    problem = Problem(problem_id=mark, task="", question=mark, answer="", verifier="")
    try:
        text = PromptText(
            config, chat_template=files.chat_template, special_tokens=files.special_tokens
        ).text(problem)
    except EngineError:
        return formats.Chat()
    head, _, tail = text.partition(mark)
    chat = formats.Chat(head=head, tail=tail, system=system)
    prompts = selected.store.query("select prompt_text from trajectories limit 1").to_pylist()
    return chat if all(chat.holds(row["prompt_text"]) for row in prompts) else formats.Chat()
