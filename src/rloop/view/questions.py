"""What the problems of a run ask: the end of each prompt, read a file at a time as time allows."""

import time

from rloop.errors import StoreError
from rloop.store.index import GroupIndex, read_step
from rloop.text import excerpt

_FILES = "select problem_id, any_value(file) as file from groups group by problem_id"


class Questions:
    """The questions read so far, by problem: at most 160 characters each, so all can be kept."""

    def __init__(self) -> None:
        """Begin without any."""
        self._known: dict[str, str] = {}

    def read(self, index: GroupIndex, budget_s: float) -> int:
        """Read questions for about that many seconds and return how many are still missing.

        At least one file is read if one is needed, so that repeated calls always come to an end.
        """
        wanted: dict[str, set[str]] = {}
        for row in index.query(_FILES):
            if row["problem_id"] not in self._known:
                wanted.setdefault(row["file"], set()).add(row["problem_id"])
        deadline = time.monotonic() + budget_s
        for key in sorted(wanted, key=lambda key: -len(wanted[key])):
            self._read(index, key, wanted[key])
            if time.monotonic() > deadline:
                break
        return sum(not names <= self._known.keys() for names in wanted.values())

    def of(self, problem_id: str) -> str:
        """Return what a problem asks; empty where that was not read yet."""
        return self._known.get(problem_id, "")

    def find(self, text: str) -> list[str]:
        """Return the problems whose question has the text; case does not matter."""
        wanted = text.lower()
        return [name for name, asked in list(self._known.items()) if wanted in asked.lower()]

    def _read(self, index: GroupIndex, key: str, names: set[str]) -> None:
        file = index.files.get(key)
        try:
            rows = read_step(file, ["problem_id", "prompt_text"]) if file else None
        except StoreError:
            rows = None  # damaged since it was counted; the next refresh of the index says so
        found = {}
        if rows is not None:
            found = dict(
                zip(rows["problem_id"].to_pylist(), rows["prompt_text"].to_pylist(), strict=True)
            )
        for name in names:
            self._known[name] = excerpt(found.get(name, ""))
