"""Trajectories out of a run, in the forms that other tools read: one table, a data set of Hugging
Face `datasets`, or what TRL and verl train on.

Nothing is overwritten, and what is written is whole or not there.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from rloop.errors import ConfigError, EngineError
from rloop.policies.prompts import PromptText
from rloop.policies.tokenizer_files import read_tokenizer
from rloop.recipe.config import PromptConfig
from rloop.store import card, forms
from rloop.store.card import Part
from rloop.store.forms import Chat
from rloop.store.outputs import SUFFIXES, new_path, write_file, write_shards
from rloop.store.records import read_object
from rloop.store.selected import Select, Selected
from rloop.types import Problem

Format = Literal["table", "datasets", "trl", "verl"]
_SAID = {
    "all": "Everything that was sampled, right and wrong, in exploration and in evaluations.",
    "correct": "What was judged correct and stopped by itself.",
    "expert": "The expert sets: what selection kept to fine-tune on, with its weights.",
}


def export_trajectories(
    run_dir: Path,
    target: Path,
    form: Format = "table",
    select: Select | None = None,
    iteration: int | None = None,
) -> int:
    """Write the chosen trajectories to a new file or folder; return how many.

    `table` is one .parquet, .jsonl or .csv file; the others are folders. TRL and verl get what
    exploration sampled, never held-out problems, and besides it the problems as RL prompts.
    """
    is_training = form in ("trl", "verl")
    if is_training and select == "all":
        raise ConfigError(
            f"--format {form} is imitated as it is, so --select must be correct or expert, not all."
        )
    if form == "table" and target.suffix not in SUFFIXES:
        raise ConfigError(
            f"{target} must end in one of {', '.join(SUFFIXES)}; for a folder give "
            "--format datasets, trl or verl."
        )
    default: Select = "correct" if is_training else "all"
    selected = Selected(run_dir=run_dir, select=select or default, iteration=iteration)
    with new_path(target) as path:
        count = WRITERS[form](selected, path)
        if not count:
            raise selected.nothing("explore" if is_training else None)
    return count


def _table(selected: Selected, path: Path) -> int:
    return write_file(path, selected.tables(), selected.schema)


def _datasets(selected: Selected, folder: Path) -> int:
    """Write shards by phase and a card, as `datasets.load_dataset(folder)` opens them."""
    parts = []
    for split in ("explore", "evaluate"):
        tables, schema = selected.tables(split), selected.schema
        count = write_shards(folder / "data", split, tables, schema)
        pattern = f"data/{split}-*.parquet"
        parts.append(_part("default", split, pattern, count, schema))
    usage = f'Load it with `datasets.load_dataset("{folder.name}")`: a split for each phase.'
    return _finish(selected, folder, parts, usage)


def _trl(selected: Selected, folder: Path) -> int:
    chat = _chat_of(selected)
    parts = [_examples(selected, folder, forms.trl_examples)]
    parts += _problems(selected, folder, lambda rows, _: forms.trl_problems(rows, chat))
    return _finish(selected, folder, parts, card.trl_usage(folder.name))


def _verl(selected: Selected, folder: Path) -> int:
    chat = _chat_of(selected)
    parts = [_examples(selected, folder, lambda table: forms.verl_examples(table, chat))]
    parts += _problems(selected, folder, lambda rows, split: forms.verl_problems(rows, chat, split))
    return _finish(selected, folder, parts, card.verl_usage(is_raw=not chat.is_known))


WRITERS: Mapping[str, Callable[[Selected, Path], int]] = {
    "table": _table,
    "datasets": _datasets,
    "trl": _trl,
    "verl": _verl,
}


def _examples(selected: Selected, folder: Path, convert: Callable[[pa.Table], pa.Table]) -> Part:
    """Write what to imitate."""
    tables = map(convert, selected.tables("explore"))
    schema = convert(selected.schema.empty_table()).schema
    count = write_shards(folder / "sft", "train", tables, schema)
    return _part("sft", "train", "sft/train-*.parquet", count, schema)


def _problems(
    selected: Selected, folder: Path, convert: Callable[[list[dict[str, Any]], str], pa.Table]
) -> Iterator[Part]:
    """Write every problem explored, and every held-out one, as prompts for RL."""
    for split, phase in (("train", "explore"), ("test", "evaluate")):
        table = convert(_problem_rows(selected, phase), split)
        count = write_shards(folder / "rl", split, [table], table.schema)
        yield _part("rl", split, f"rl/{split}-*.parquet", count, table.schema)


def _problem_rows(selected: Selected, phase: str) -> list[dict[str, Any]]:
    iteration = selected.iteration
    condition = "" if iteration is None else f"and iteration = {iteration}"
    query = forms.PROBLEMS_SQL.format(phase=phase, condition=condition)
    return list(selected.store.query(query).to_pylist())


def _part(config: str, split: str, pattern: str, count: int, schema: pa.Schema) -> Part:
    return Part(config=config, split=split, pattern=pattern, num_rows=count, schema=schema)


def _finish(selected: Selected, folder: Path, parts: list[Part], usage: str) -> int:
    """Write the card; return how many trajectories there are."""
    said = _SAID[selected.select]
    if selected.iteration is not None:
        said += f" Iteration {selected.iteration} only."
    held = [part for part in parts if part.num_rows]
    text = card.dataset_card(held, _config(selected), said, usage, selected.verifiers())
    (folder / "README.md").write_text(text, encoding="utf-8")
    return sum(part.num_rows for part in held if part.config != "rl")


def _config(selected: Selected) -> dict[str, Any]:
    path = selected.run_dir / "config.json"
    return read_object(path) if path.exists() else {}


def _chat_of(selected: Selected) -> Chat:
    """Return how the run's chat template wraps a problem; an empty one where that is not known.

    Known when the recipe used the template of the model, a policy of the run has it, and the run's
    prompts look like it.
    """
    prompt = _config(selected).get("prompt", {})
    found = sorted(selected.run_dir.glob("policies/*/tokenizer_config.json"))
    files = read_tokenizer(str(found[0].parent)) if found else None
    if files is None or prompt.get("template") is not None:
        return Chat()
    system, mark = prompt.get("system"), "\x00problem\x00"
    config = PromptConfig.model_validate(prompt | {"suffix": ""})
    problem = Problem(problem_id=mark, task="", question=mark, answer="", verifier="")
    try:
        text = PromptText(
            config, chat_template=files.chat_template, special_tokens=files.special_tokens
        ).text(problem)
    except EngineError:
        return Chat()
    head, _, tail = text.partition(mark)
    chat = Chat(head=head, tail=tail, system=system)
    prompts = selected.store.query("select prompt_text from trajectories limit 1").to_pylist()
    return chat if all(chat.holds(row["prompt_text"]) for row in prompts) else Chat()
