"""Text search over the steps of a run, the newest first, for a bounded time.

Where the time is over before the files are, the search says how far it got and can be taken up
there.
"""

import time
from dataclasses import dataclass

import numpy as np

from rloop.errors import StoreError
from rloop.store.index import GroupIndex, StepFile, read_step
from rloop.text import visible
from rloop.view.groups import COLUMNS, Filters, contains
from rloop.view.steps import step_label

BUDGET_S = 0.6
MAX_HITS = 40
HITS_A_FILE = 3
AROUND = 90
"""Characters shown on each side of what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A trajectory that was found; `excerpt` is visible text around the first match."""

    problem_id: str
    member: int
    verdict: str
    excerpt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHits:
    """What was found in one step. Example: FileHits(file=StepFile(...), label="iter-001",
    hits=(Hit(...),), num_found=17)
    """

    file: StepFile
    label: str
    hits: tuple[Hit, ...]
    """The first of them."""
    num_found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How far a search got.

    Example: Found(files=(FileHits(...),), num_searched=80, num_before=0, num_files=500,
    last="2/explore/11", damaged=())
    """

    files: tuple[FileHits, ...]
    num_searched: int
    num_before: int
    """Files that earlier pages of the search went through."""
    num_files: int
    last: str
    """Key of the last file searched, where the next page goes on; empty at the end."""
    damaged: tuple[str, ...]


def search(
    index: GroupIndex,
    filters: Filters,
    *,
    phase: str = "",
    after: str = "",
    budget_s: float = BUDGET_S,
) -> Found:
    """Search back from the newest step, or from behind the step `after`; one file at least."""
    files = [file for file in index.files.values() if not phase or file.phase == phase]
    files.reverse()
    keys = [file.key for file in files]
    begin = keys.index(after) + 1 if after in keys else 0
    deadline = time.monotonic() + budget_s
    found: list[FileHits] = []
    damaged = []
    end = begin
    for file in files[begin:]:
        try:
            hits = _search_file(file, filters)
        except StoreError as error:
            damaged.append(str(error))
        else:
            found += [hits] if hits is not None else []
        end += 1
        if time.monotonic() > deadline or sum(len(f.hits) for f in found) >= MAX_HITS:
            break
    return Found(
        files=tuple(found),
        num_searched=end - begin,
        num_before=begin,
        num_files=len(files),
        last=keys[end - 1] if begin < end < len(files) else "",
        damaged=tuple(damaged),
    )


def _search_file(file: StepFile, filters: Filters) -> FileHits | None:
    rows = read_step(file, COLUMNS)
    places = np.flatnonzero(filters.mask(rows))
    if not len(places):
        return None
    # What the policy wrote comes before what it was asked.
    is_asked = ~contains(rows["completion_text"], filters.text)
    places = places[np.argsort(is_asked[places], kind="stable")]
    shown = rows.take(places[:HITS_A_FILE]).to_pylist()
    return FileHits(
        file=file,
        label=step_label(file, shown[0]["policy"]),
        hits=tuple(
            Hit(
                problem_id=row["problem_id"],
                member=row["member"],
                verdict=row["verdict"],
                excerpt=excerpt_around(row["completion_text"], row["prompt_text"], filters.text),
            )
            for row in shown
        ),
        num_found=len(places),
    )


def excerpt_around(completion: str, prompt: str, text: str) -> str:
    """Return the surroundings of the first match, in the completion if it is there."""
    source = completion if text.lower() in completion.lower() else prompt
    place = source.lower().find(text.lower())
    begin, end = max(0, place - AROUND), place + len(text) + AROUND
    before, after = "... " if begin else "", " ..." if end < len(source) else ""
    return f"{before}{visible(source[begin:end])}{after}"
