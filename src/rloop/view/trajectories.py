"""The trajectories of a step as its page shows them: filters, groups, completions side by side; and
the search through the steps of a run, the newest first.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rloop.errors import StoreError
from rloop.store.index import GroupIndex, StepFile, read_step
from rloop.text import excerpt, visible

COLUMNS = (
    *("policy", "task", "problem_id", "member", "verdict", "reason", "answer", "reference"),
    *("reward", "finish_reason", "question", "prompt_text", "completion_text", "completion_tokens"),
    *("behavior_logprob_sum", "rewards"),
)
HEAD, TAIL = 4000, 2000
"""Characters of a long completion's two ends that a card shows; the answer is at the end."""
CARDS_A_PAGE = 24
FILES_A_SEARCH = 24
"""Step files that a page of a search reads; the next page goes on behind them."""
MAX_HITS = 40
HITS_A_FILE = 3
AROUND = 90
"""Characters shown on each side of what was found."""

Mask = npt.NDArray[np.bool_]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which trajectories are looked for; an empty filter lets everything through.

    Example: Filters(verdict="wrong", finish="stop", text="therefore", problem="gsm8k/train/1")
    """

    verdict: str = ""
    finish: str = ""
    text: str = ""
    """Anywhere in prompt or completion; case does not matter."""
    problem: str = ""
    """Anywhere in the problem id."""

    @property
    def given(self) -> dict[str, str]:
        """Return the filters that are set, as parameters of an address."""
        return {name: value for name, value in asdict(self).items() if value}

    def mask(self, rows: pa.Table) -> Mask:
        """Return which rows pass; they have the columns of `COLUMNS`."""
        found = np.ones(rows.num_rows, dtype=bool)
        if self.verdict:
            found &= _flags(pc.equal(rows["verdict"], self.verdict))
        if self.finish:
            found &= _flags(pc.equal(rows["finish_reason"], self.finish))
        if self.problem:
            found &= _contains(rows["problem_id"], self.problem)
        if self.text:
            in_prompt = _contains(rows["prompt_text"], self.text)
            found &= in_prompt | _contains(rows["completion_text"], self.text)
        return found


def step_label(file: StepFile, policy: str = "") -> str:
    """Return what a reader calls a file: `step 4`, or `explored-002@4` of a policy measured."""
    if file.phase == "explore":
        return f"step {file.step}"
    return f"{policy or file.part}{f'@{file.step}' if file.step else ''}"


def group_lines(rows: pa.Table, matches: Mask) -> list[Row]:
    """Return the groups with a row that matches, in the order in which they were written.

    Keys: problem_id, prompt (the end of the question), verdicts in member order and
    num_correct of them.
    """
    verdicts = rows["verdict"].to_pylist()
    members: dict[str, list[int]] = {}
    for number, problem_id in enumerate(rows["problem_id"].to_pylist()):
        members.setdefault(problem_id, []).append(number)
    kept = {name: own for name, own in members.items() if matches[own].any()}
    firsts = pa.array([own[0] for own in kept.values()], pa.int64())
    asked = pc.coalesce(rows["question"], rows["prompt_text"]).take(firsts).to_pylist()
    return [
        {
            "problem_id": problem_id,
            "prompt": excerpt(question),
            "verdicts": [verdicts[number] for number in own],
            "num_correct": sum(verdicts[number] == "correct" for number in own),
        }
        for (problem_id, own), question in zip(kept.items(), asked, strict=True)
    ]


def group_view(rows: pa.Table, matches: Mask, problem_id: str, first: int) -> Row | None:
    """Return a group with at most `CARDS_A_PAGE` cards from the member `first` on, None without.

    Keys: problem_id, task, policy, prompt, reference, size, num_correct and cards.
    """
    places = np.flatnonzero(_flags(pc.equal(rows["problem_id"], problem_id)))
    if not len(places):
        return None
    shown = places[first : first + CARDS_A_PAGE]
    (found,) = rows.take(places[:1]).to_pylist()
    is_correct = pc.equal(rows["verdict"].take(places), "correct")
    cards = zip(rows.take(shown).to_pylist(), matches[shown].tolist(), strict=True)
    return {
        **{name: found[name] for name in ("problem_id", "task", "policy")},
        "prompt": visible(found["prompt_text"]),
        "reference": visible(found["reference"] or ""),
        "size": len(places),
        "num_correct": int(pc.sum(is_correct).as_py() or 0),
        "cards": [_card(row) | {"is_match": is_match} for row, is_match in cards],
    }


def shown_row(row: Mapping[str, Any]) -> Row:
    """Return a row with its texts made visible, not yet escaped, and two values more.

    `logprob_mean` is of its sampled tokens (nats), None for no tokens; `rewards` are name, value
    (None for an error) and reason.
    """
    tokens, total = row["completion_tokens"], row["behavior_logprob_sum"]
    texts = {name: visible(value) for name, value in row.items() if isinstance(value, str)}
    return {
        **row,
        **texts,
        "logprob_mean": total / tokens if tokens and total is not None else None,
        "rewards": [
            (e["name"], e["value"], visible(e["reason"] or "")) for e in row["rewards"] or ()
        ],
    }


def _card(row: Mapping[str, Any]) -> Row:
    """Return a completion as a card shows it: a long one as its two ends, and what is between."""
    shown = shown_row(row)
    text = shown.pop("completion_text")
    is_long = len(text) > HEAD + TAIL
    return shown | {
        "head": text[:HEAD] if is_long else text,
        "tail": text[-TAIL:] if is_long else "",
        "num_left_out": len(text) - HEAD - TAIL if is_long else 0,
    }


# Search


def search(index: GroupIndex, filters: Filters, *, phase: str = "", after: str = "") -> Row:
    """Search back from the newest step, or from behind the step `after`, some steps at a time.

    Keys: files (those with hits: file, label, hits, num_found), num_searched with the pages
    before, num_files, `last` (the step searched last, empty at the end) and damaged.
    """
    files = [file for file in index.files.values() if not phase or file.phase == phase][::-1]
    keys = [file.key for file in files]
    end = keys.index(after) + 1 if after in keys else 0
    found: list[Row] = []
    damaged = []
    for file in files[end : end + FILES_A_SEARCH]:
        try:
            found += _hits(file, filters)
        except StoreError as error:
            damaged.append(str(error))
        end += 1
        if sum(len(one["hits"]) for one in found) >= MAX_HITS:
            break
    return {
        "files": found,
        "num_searched": end,
        "num_files": len(files),
        "last": keys[end - 1] if 0 < end < len(files) else "",
        "damaged": damaged,
    }


def _hits(file: StepFile, filters: Filters) -> list[Row]:
    """Return what was found in a step, in a list; the first hits alone are shown."""
    rows = read_step(file, COLUMNS)
    places = np.flatnonzero(filters.mask(rows))
    if not len(places):
        return []
    # What the policy wrote comes before what it was asked.
    is_asked = ~_contains(rows["completion_text"], filters.text)
    places = places[np.argsort(is_asked[places], kind="stable")]
    shown = rows.take(places[:HITS_A_FILE]).to_pylist()
    hits = [
        {
            **{name: row[name] for name in ("problem_id", "member", "verdict")},
            "excerpt": excerpt_around(row["completion_text"], row["prompt_text"], filters.text),
        }
        for row in shown
    ]
    label = step_label(file, shown[0]["policy"])
    return [{"file": file, "label": label, "hits": hits, "num_found": len(places)}]


def excerpt_around(completion: str, prompt: str, text: str) -> str:
    """Return the surroundings of the first match, in the completion if it is there."""
    source = completion if text.lower() in completion.lower() else prompt
    place = source.lower().find(text.lower())
    begin, end = max(0, place - AROUND), place + len(text) + AROUND
    before, after = "... " if begin else "", " ..." if end < len(source) else ""
    return f"{before}{visible(source[begin:end])}{after}"


def _contains(column: pa.ChunkedArray, text: str) -> Mask:
    """Return which texts of a column have the text in them; case does not matter."""
    return _flags(pc.match_substring(column, text, ignore_case=True))


def _flags(values: pa.ChunkedArray) -> Mask:
    found: Mask = np.asarray(pc.fill_null(values, fill_value=False).to_numpy())
    return found
