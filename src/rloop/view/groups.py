"""The groups of one step, and the completions of one group side by side, through filters."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rloop.text import excerpt, visible

COLUMNS = (
    *("policy", "task", "problem_id", "member", "verdict", "reason", "answer", "reference"),
    *("reward", "finish_reason", "prompt_text", "completion_text", "completion_tokens"),
    *("behavior_logprob_sum", "rewards"),
)
HEAD, TAIL = 4000, 2000
"""Characters of a long completion's two ends that a card shows; the answer is at the end."""
CARDS_A_PAGE = 24

Mask = npt.NDArray[np.bool_]


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
            found &= contains(rows["problem_id"], self.problem)
        if self.text:
            in_prompt = contains(rows["prompt_text"], self.text)
            found &= in_prompt | contains(rows["completion_text"], self.text)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLine:
    """A group as a list shows it.

    Example: GroupLine(problem_id="sums/train/1", task="sums", verdicts=("correct", "wrong"),
    num_correct=1, num_matches=2, prompt="1+1=")
    """

    problem_id: str
    task: str
    verdicts: tuple[str, ...]
    """In member order."""
    num_correct: int
    num_matches: int
    """Members that pass the filters."""
    prompt: str
    """The end of the prompt, where the question is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One completion; text is made visible, not yet escaped."""

    member: int
    verdict: str
    answer: str
    """As extracted; empty where none was found."""
    reason: str
    finish_reason: str
    tokens: int
    reward: float
    rewards: tuple[tuple[str, float | None, str], ...]
    """The recipe's, each with its value (None for an error) and what it said."""
    logprob_mean: float | None
    """Of its sampled tokens, nats; None for an empty completion."""
    head: str
    tail: str
    """The end of a long completion, else empty."""
    num_left_out: int
    """Characters between head and tail."""
    is_match: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """The completions of one problem from one policy, some at a time."""

    problem_id: str
    task: str
    policy: str
    prompt: str
    reference: str
    size: int
    num_correct: int
    cards: tuple[Card, ...]


def group_lines(rows: pa.Table, matches: Mask) -> list[GroupLine]:
    """Return the groups with a row that matches, in the order in which they were written."""
    problems = rows["problem_id"].to_pylist()
    verdicts = rows["verdict"].to_pylist()
    members: dict[str, list[int]] = {}
    for number, problem_id in enumerate(problems):
        members.setdefault(problem_id, []).append(number)
    kept = {name: own for name, own in members.items() if matches[own].any()}
    places = pa.array([own[0] for own in kept.values()], pa.int64())
    firsts = rows.select(["task", "prompt_text"]).take(places)
    return [
        GroupLine(
            problem_id=problem_id,
            task=first["task"],
            verdicts=tuple(verdicts[number] for number in own),
            num_correct=sum(verdicts[number] == "correct" for number in own),
            num_matches=int(matches[own].sum()),
            prompt=excerpt(first["prompt_text"]),
        )
        for (problem_id, own), first in zip(kept.items(), firsts.to_pylist(), strict=True)
    ]


def group_view(rows: pa.Table, matches: Mask, problem_id: str, first: int) -> GroupView | None:
    """Return a group with at most `CARDS_A_PAGE` cards from the member `first` on."""
    places = np.flatnonzero(_flags(pc.equal(rows["problem_id"], problem_id)))
    if not len(places):
        return None
    shown = places[first : first + CARDS_A_PAGE]
    found = rows.take(places[:1]).to_pylist()[0]
    cards = rows.take(shown).to_pylist()
    is_correct = pc.equal(rows["verdict"].take(places), "correct")
    return GroupView(
        problem_id=problem_id,
        task=found["task"],
        policy=found["policy"],
        prompt=visible(found["prompt_text"]),
        reference=visible(found["reference"] or ""),
        size=len(places),
        num_correct=int(pc.sum(is_correct).as_py() or 0),
        cards=tuple(
            _card(row, is_match=bool(matches[place]))
            for row, place in zip(cards, shown, strict=True)
        ),
    )


def logprob_mean(row: Mapping[str, Any]) -> float | None:
    """Return the mean log-probability of a row's sampled tokens; None for no tokens."""
    tokens, total = row["completion_tokens"], row["behavior_logprob_sum"]
    return total / tokens if tokens and total is not None else None


def named_rewards(row: Mapping[str, Any]) -> tuple[tuple[str, float | None, str], ...]:
    """Return name, value and reason of each of a row's rewards."""
    entries = row["rewards"] or ()
    return tuple((e["name"], e["value"], visible(e["reason"] or "")) for e in entries)


def _card(row: Mapping[str, Any], *, is_match: bool) -> Card:
    text = visible(row["completion_text"])
    is_long = len(text) > HEAD + TAIL
    return Card(
        member=row["member"],
        verdict=row["verdict"],
        answer=visible(row["answer"] or ""),
        reason=visible(row["reason"] or ""),
        finish_reason=row["finish_reason"],
        tokens=row["completion_tokens"],
        reward=row["reward"],
        rewards=named_rewards(row),
        logprob_mean=logprob_mean(row),
        head=text[:HEAD] if is_long else text,
        tail=text[-TAIL:] if is_long else "",
        num_left_out=len(text) - HEAD - TAIL if is_long else 0,
        is_match=is_match,
    )


def contains(column: pa.ChunkedArray, text: str) -> Mask:
    """Return which texts of a column have the text in them; case does not matter."""
    return _flags(pc.match_substring(column, text, ignore_case=True))


def _flags(values: pa.ChunkedArray) -> Mask:
    found: Mask = np.asarray(pc.fill_null(values, fill_value=False).to_numpy())
    return found
