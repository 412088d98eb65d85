"""What a verification looked at, and what it found wrong."""

from dataclasses import asdict, dataclass, field
from typing import Any

from rloop.text import visible

MAX_SHOWN = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Example: Finding(file="trajectories/iteration=1/phase=explore/step-000012.parquet",
    said="it is torn or not a parquet file (...)", is_damaged=True)
    """

    file: str
    """Relative to the run directory."""
    said: str
    is_damaged: bool = False
    """Whether the file itself cannot be trusted, so that it can be set aside."""


@dataclass(slots=True)
class Findings:
    """Counts of what was checked, by kind, and all that is wrong; filled in as one goes."""

    checked: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    found: list[Finding] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    """Files that nothing reads, in words: what was set aside, what a crash left."""

    def count(self, kind: str, number: int = 1) -> None:
        """Say that so many of a kind were checked."""
        self.checked[kind] = self.checked.get(kind, 0) + number

    def add(
        self, kind: str, file: str, said: str, *, is_damaged: bool = False, number: int = 1
    ) -> None:
        """Say that so many of a kind are wrong."""
        self.wrong[kind] = self.wrong.get(kind, 0) + number
        self.found.append(Finding(file=file, said=said, is_damaged=is_damaged))

    def expect(self, kind: str, file: str, what: str, *, stored: object, recorded: object) -> None:
        """Count a comparison; what is not recorded is not compared."""
        if recorded is None:
            return
        self.count(kind)
        if not _equal(stored, recorded):
            self.add(kind, file, f"{what}: {_told(recorded)} recorded, {_told(stored)} stored")

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.found

    def rows(self) -> list[tuple[str, int, int]]:
        """Return the table of a verification: kind, how many were checked, how many are wrong."""
        kinds = dict.fromkeys([*self.checked, *self.wrong])
        return [(kind, self.checked.get(kind, 0), self.wrong.get(kind, 0)) for kind in kinds]

    def lines(self) -> list[str]:
        """Return what is wrong, what is left over, and the verdict, a line each."""
        damaged = sum(finding.is_damaged for finding in self.found)
        end = "Everything is as it was written." if self.is_sound else f"{len(self.found)} found."
        if damaged:
            end += f" {damaged} can be set aside (--set-aside) where there is no backup of them."
        shown = self.found[:MAX_SHOWN]
        wrong = [f"Wrong: {visible(f'{finding.file}: {finding.said}')}" for finding in shown]
        if len(self.found) > MAX_SHOWN:
            wrong.append(f"and {len(self.found) - MAX_SHOWN} more: --json has all.")
        return [*wrong, *(f"Left over: {left}" for left in self.leftovers), end]

    def as_json(self) -> dict[str, Any]:
        """Return all of it in plain values."""
        return {
            "is_sound": self.is_sound,
            "checks": [
                {"what": kind, "checked": checked, "wrong": wrong}
                for kind, checked, wrong in self.rows()
            ],
            "found": [asdict(finding) for finding in self.found],
            "leftovers": self.leftovers,
        }


def _equal(stored: object, recorded: object) -> bool:
    """Whether two numbers are the same but for the last digits of a division."""
    if isinstance(stored, int | float) and isinstance(recorded, int | float):
        return abs(stored - recorded) <= 1e-9 * max(1.0, abs(stored))
    return stored == recorded


def _told(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
