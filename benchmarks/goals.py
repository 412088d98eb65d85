"""What rloop is to reach in each work set, beside what it reached."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from work_sets import OURS

Found = dict[str, Any]
"""The summary of a work set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A number wanted. Example: Goal(text="times TRL", wanted=6, measure=times("step", "trl"))."""

    text: str
    wanted: float
    measure: Callable[[Found], float | None]
    """Takes the number from a summary; None where the contender is absent."""
    is_least: bool = True
    """Whether the number is to be at least what is wanted, or at most."""
    only_full: bool = False
    """Whether it means the full size alone."""

    def is_met(self, found: float) -> bool:
        """Whether a number reaches the goal."""
        return found >= self.wanted if self.is_least else found <= self.wanted


def times(part: str, *peers: str) -> Callable[[Found], float | None]:
    """Measure how often rloop does its part while the fastest of the peers does it once."""

    def measure(found: Found) -> float | None:
        ratios = [
            found["contenders"][peer]["parts"][part]["times_rloop"]
            for peer in peers
            if peer in found["contenders"]
        ]
        return min((ratio for ratio in ratios if ratio is not None), default=None)

    return measure


def figure(part: str, name: str) -> Callable[[Found], float | None]:
    """Measure a figure of one of rloop's parts: `of_limit_frac`, `rate_per_s`, `median_s`."""

    def measure(found: Found) -> float | None:
        ours = found["contenders"].get(OURS)
        value: float | None = ours["parts"][part][name] if ours else None
        return value

    return measure


def share(part: str, whole: str) -> Callable[[Found], float | None]:
    """Measure which fraction of one part of rloop's another one is."""

    def measure(found: Found) -> float | None:
        some, all_of_it = figure(part, "median_s")(found), figure(whole, "median_s")(found)
        return some / all_of_it if some is not None and all_of_it else None

    return measure


def peak(found: Found) -> float | None:
    """Return the peak memory of rloop's process in GB."""
    ours = found["contenders"].get(OURS)
    return ours["peak_bytes"] / 1e9 if ours else None


def peak_of_trl(found: Found) -> float | None:
    """Return rloop's peak memory over TRL's."""
    ours, theirs = found["contenders"].get(OURS), found["contenders"].get("trl")
    return ours["peak_bytes"] / theirs["peak_bytes"] if ours and theirs else None


def heavy_imports(found: Found) -> float | None:
    """Return how many heavy packages the light commands imported."""
    ours = found["contenders"].get(OURS)
    return ours["check"] if ours else None


BOOKKEEPING = Goal(
    text="bookkeeping, fraction of a run",
    wanted=0.03,
    measure=share("bookkeeping", "run"),
    is_least=False,
)
PHASE_CHANGE = Goal(
    text="longest phase change, s",
    wanted=1,
    measure=figure("phase change", "median_s"),
    is_least=False,
)
GOALS: dict[str, tuple[Goal, ...]] = {
    "S1": (
        Goal(text="times generate", wanted=5, measure=times("sample", "generate")),
        Goal(text="times vLLM", wanted=2, measure=times("sample", "vllm")),
        Goal(text="of the limit", wanted=0.35, measure=figure("sample", "of_limit_frac")),
    ),
    "S2": (
        Goal(text="times TRL", wanted=6, measure=times("step", "trl")),
        Goal(text="memory over TRL's", wanted=1 / 3, measure=peak_of_trl, is_least=False),
    ),
    "S3": (Goal(text="times TRL", wanted=1.5, measure=times("epoch", "trl")),),
    "S4b": (Goal(text="times TRL", wanted=5, measure=times("step", "trl")),),
    "S5": (
        Goal(text="appended trajectories/s", wanted=50_000, measure=figure("append", "rate_per_s")),
        Goal(
            text="selection, s",
            wanted=5,
            measure=figure("select", "median_s"),
            is_least=False,
            only_full=True,
        ),
        Goal(text="memory, GB", wanted=1.5, measure=peak, is_least=False, only_full=True),
    ),
    "G1": (
        Goal(
            text="times transformers' best",
            wanted=5,
            measure=times("sample", "generate", "continuous"),
        ),
        Goal(text="of the limit", wanted=0.6, measure=figure("sample", "of_limit_frac")),
    ),
    "G2": (Goal(text="times TRL", wanted=5, measure=times("step", "trl")),),
    "G3": (
        Goal(text="times TRL", wanted=5, measure=times("epoch", "trl")),
        Goal(text="of the limit", wanted=0.45, measure=figure("epoch", "of_limit_frac")),
    ),
    "O1": (PHASE_CHANGE,),
    "O2": (BOOKKEEPING, PHASE_CHANGE),
    "O3": (Goal(text="heavy packages imported", wanted=0, measure=heavy_imports, is_least=False),),
}


def judge(name: str, found: Found, *, is_full: bool) -> list[dict[str, Any]]:
    """Return the goals of a work set with what was found; None for what was not measured."""
    judged = []
    for goal in GOALS.get(name, ()):
        if goal.only_full and not is_full:
            continue
        value = goal.measure(found)
        judged.append(
            {
                "goal": goal.text,
                "wanted": goal.wanted,
                "is_least": goal.is_least,
                "found": value,
                "is_met": None if value is None else goal.is_met(value),
            }
        )
    return judged
