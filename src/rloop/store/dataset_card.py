"""The README.md beside exported data: what it is, where it came from, how it is loaded."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from huggingface_hub import DatasetCardData

TRL_USAGE = """\
    from datasets import load_dataset
    sft = load_dataset("{name}", "sft", split="train")
    rl = load_dataset("{name}", "rl")  # train: explored problems; test: the held-out ones

Pass `sft` to `SFTTrainer` as it is: TRL uses the sampled token ids (`input_ids`) and trains on
completions only (`completion_mask`), because the rows also have `prompt` and `completion`. Remove
`input_ids` and `completion_mask` to tokenize the texts again. TRL ignores `weight`. Pass `rl` to
`GRPOTrainer`; `solution` is the reference answer.
"""
"""How TRL reads the folder of a name."""


class Part(NamedTuple):
    """Files of one kind in an exported folder.

    Example: Part("sft", "train", "sft/train-*.parquet", 512, schema)
    """

    config: str
    split: str
    pattern: str
    num_rows: int
    schema: pa.Schema


def dataset_card(
    parts: Sequence[Part],
    config: Mapping[str, Any],
    selection: str,
    usage: str,
    verifiers: Mapping[str, str],
) -> str:
    """Return a card as the hub reads it; `config` is the run's resolved recipe.

    `verifiers` has what judged each task, such as numeric/2: a recipe may leave the choice open.
    """
    files: dict[str, list[dict[str, str]]] = {}
    for part in parts:
        files.setdefault(part.config, []).append({"split": part.split, "path": part.pattern})
    data = DatasetCardData(
        tags=["rloop", "trajectories", "reasoning"],
        configs=[{"config_name": name, "data_files": found} for name, found in files.items()],
    )
    body = [f"# Trajectories of the run {_code(config.get('name'))}", "", selection, ""]
    body += [*_facts(config, verifiers), "", usage]
    for part in parts:
        body += ["", f"## {part.config}, {part.split}: {part.num_rows:,} rows", ""]
        body += ["| column | type |", "|---|---|"]
        body += [f"| `{field.name}` | `{field.type}` |" for field in part.schema]
    return "\n".join(["---", data.to_yaml(), "---", "", *body]) + "\n"


def _facts(config: Mapping[str, Any], verifiers: Mapping[str, str]) -> list[str]:
    tasks = config.get("tasks", {})
    named = [
        _task(task, verifiers) for kind in ("train", "evaluate") for task in tasks.get(kind, [])
    ]
    return [
        f"- base policy: {_code(config.get('policy', {}).get('path'))}",
        f"- seed: {config.get('seed')}",
        *(f"- task: {task}" for task in named),
        "- license: not stated; those of the model and of the problems apply",
        "- written by `rloop store export`",
    ]


def _task(task: Mapping[str, Any], verifiers: Mapping[str, str]) -> str:
    """Return a task in words; one without a name of its own is called as its source is."""
    source = task.get("source")
    name = task.get("name") or str(source).rpartition(":")[2]
    verifier = verifiers.get(name) or task.get("verifier") or "its source's own"
    return f"{_code(name)} ({_code(source)}, verifier {_code(verifier)})"


def _code(value: object) -> str:
    """Return text that came from a recipe so that Markdown shows it as it is."""
    return f"`{str(value).replace('`', chr(39))}`"
