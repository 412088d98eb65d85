"""A small sample of what the model wrote, right and wrong, out of every part of a run."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rloop.run_directory import Row
from rloop.store.trajectories import TrajectoryStore
from rloop.text import excerpt, visible

MAX_SAMPLED = 72
MAX_QUESTION = 120
"""Characters of a question in a row."""
MAX_CHARACTERS = 6000
"""Of a prompt and of a completion; the rest is left out and said to be."""

_STRATUM = ("iteration", "phase", "policy", "verdict")
_SHOWN = (
    *("iteration", "phase", "policy", "step", "problem_id", "member", "verdict", "reason"),
    *("answer", "reference", "finish_reason", "question", "prompt_text", "completion_text"),
    "completion_tokens",
)
_ORDER = [
    ("iteration", "descending"),
    ("phase", "ascending"),
    ("policy", "descending"),
    ("step", "descending"),
    ("problem_id", "ascending"),
    ("member", "ascending"),
]


def sample_trajectories(run_dir: Path) -> tuple[list[Row], int]:
    """Return a sample spread over iterations, phases, policies and verdicts, and the number of all.

    The choice depends on the trajectories alone, so the same run gives the same sample. Texts are
    read of the chosen ones only, made visible but not yet escaped for HTML. Keys are those of the
    store, empty where there is nothing, with `place` in words and `question`, the prompt's end.
    """
    pool = TrajectoryStore(run_dir).light((*_STRATUM, "seed"))
    rows = pool.take(_in_turn(pool.columns), _SHOWN).sort_by(_ORDER).to_pylist()
    return [_shown(row) for row in rows], pool.columns.num_rows


def _in_turn(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return rows, one of every stratum in turn until there are enough.

    Within a stratum by the seed of the trajectory's random stream: as good as a draw, and the same
    draw every time.
    """
    stratum = np.zeros(table.num_rows, np.int64)
    for name in _STRATUM:
        codes = table[name].combine_chunks().dictionary_encode()
        stratum = stratum * len(codes.dictionary) + codes.indices.to_numpy()
    seed = table["seed"].to_numpy()
    order = np.lexsort([seed, stratum])
    starts = np.flatnonzero(np.diff(stratum[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    turn = np.arange(len(order)) - np.repeat(starts, sizes)
    first = np.flatnonzero(turn < MAX_SAMPLED)
    chosen: npt.NDArray[np.int64] = order[first][np.lexsort([seed[order[first]], turn[first]])]
    return chosen[:MAX_SAMPLED]


def _shown(row: Row) -> Row:
    texts = {key: "" if value is None else visible(str(value)) for key, value in row.items()}
    step = f", step {texts['step']}" if row["step"] else ""
    return texts | {
        "place": f"iteration {texts['iteration']}, {texts['phase']}{step}",
        "question": excerpt(row["question"] or row["prompt_text"], MAX_QUESTION),
        "prompt": _cut(texts["prompt_text"]),
        "completion": _cut(texts["completion_text"]),
    }


def _cut(text: str) -> str:
    left_out = len(text) - MAX_CHARACTERS
    return text if left_out <= 0 else f"{text[:MAX_CHARACTERS]}\n[{left_out} more characters]"
