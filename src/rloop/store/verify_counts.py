"""Counts that a run recorded, against what is stored: the manifest, the log, the expert sets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from rloop.errors import StoreError
from rloop.store.expert import read_problems
from rloop.store.findings import Findings
from rloop.store.records import RESCORED_KEY
from rloop.store.verify_files import SmallFiles

COUNTS = "counts of the manifest"
LOGGED = "numbers of the log"
MANIFEST, METRICS = "manifest.json", "metrics.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What is stored of one policy on one task in one step.

    Example: Tally(iteration=1, phase="explore", step=3, policy="explored-001", task="gsm8k",
    num_problems=8, num_rows=64, fewest_samples=8, most_samples=8, num_tokens=9120, reward=20.0,
    num_correct=20, num_errors=0, num_truncated=3, num_successes=20)
    """

    iteration: int
    phase: str
    step: int
    policy: str
    task: str
    num_problems: int
    num_rows: int
    fewest_samples: int
    """Of a problem."""
    most_samples: int
    num_tokens: int
    reward: float
    """Sum."""
    num_correct: int
    num_errors: int
    num_truncated: int
    num_successes: int
    """Correct and stopped by itself."""


def check_counts(
    small: SmallFiles, tallies: Sequence[Tally], run_dir: Path, findings: Findings
) -> None:
    """Compare everything that was recorded with what is stored."""
    _check_explorations(small, tallies, findings)
    _check_evaluations(small, tallies, findings)
    _check_log(small, tallies, findings)
    _check_selections(small, tallies, run_dir, findings)


def _check_explorations(small: SmallFiles, tallies: Sequence[Tally], findings: Findings) -> None:
    """Every step up to the last is stored, with as many tokens and trajectories as were sampled."""
    for key, recorded in small.explorations():
        iteration = int(key.partition("/")[0])
        stored = [t for t in tallies if (t.iteration, t.phase) == (iteration, "explore")]
        stored = [t for t in stored if t.step <= recorded["steps"]]
        lost = small.lost(key)
        missing = set(range(1, recorded["steps"] + 1)) - {t.step for t in stored}
        missing -= {int(entry["step"]) for entry in lost}
        findings.count(COUNTS)
        if missing:
            steps = ", ".join(map(str, sorted(missing)[:5]))
            said = f"{key}: {len(missing)} of {recorded['steps']} steps are not stored ({steps})"
            findings.add(COUNTS, MANIFEST, said)
        for what, field in (("sampled_tokens", "num_tokens"), ("trajectories", "num_rows")):
            findings.expect(
                COUNTS,
                MANIFEST,
                f"{key}, {what.replace('_', ' ')}",
                stored=_sum(stored, field) + sum(int(entry[what]) for entry in lost),
                recorded=recorded.get(what),
            )


def _check_evaluations(small: SmallFiles, tallies: Sequence[Tally], findings: Findings) -> None:
    """Every evaluation has every problem of the task, with as many samples as the recipe says."""
    counts = (small.phases.get("0/problems") or {}).get("counts", {})
    samples = small.config.get("evaluate", {}).get("samples")
    ended = {(r["iteration"], r["step"], r["policy"]) for r in small.metrics}
    for tally in tallies:
        place = (tally.iteration, tally.step, tally.policy)
        if tally.phase != "evaluate" or place not in ended or small.lost_evaluation(*place):
            continue
        name = f"the evaluation of {_label(tally)} on {tally.task}"
        for what, stored, recorded in (
            ("problems", tally.num_problems, counts.get(tally.task)),
            ("samples of each problem, fewest", tally.fewest_samples, samples),
            ("samples of each problem, most", tally.most_samples, samples),
        ):
            findings.expect(COUNTS, MANIFEST, f"{name}, {what}", stored=stored, recorded=recorded)
    stored_keys = {(t.iteration, t.policy, t.task) for t in tallies if t.phase == "evaluate"}
    for key in small.phases:
        iteration, phase, *policy = key.split("/", 2)
        for task in counts if phase == "evaluate" else ():
            findings.count(COUNTS)
            is_stored = (int(iteration), policy[0], task) in stored_keys
            if not is_stored and task not in ("train", "coldstart"):
                findings.add(COUNTS, MANIFEST, f"{key} is complete, nothing of {task} is stored")


def _check_log(small: SmallFiles, tallies: Sequence[Tally], findings: Findings) -> None:
    """Each line's counts and rates are those of the trajectories; the last line of a place counts.

    So is what the manifest has of an evaluation those of its line.
    """
    lines = {(r["iteration"], r["phase"], r["step"], r["policy"]): r for r in small.metrics}
    by_place: dict[tuple[Any, ...], list[Tally]] = {}
    for tally in tallies:
        place = (tally.iteration, tally.phase, tally.step, tally.policy)
        by_place.setdefault(place, []).append(tally)
    for place, line in lines.items():
        stored = by_place.get(place, [])
        label = f"iteration {place[0]}, {place[1]}, step {place[2]}, {place[3]}"
        if place[1] == "explore" and not small.is_lost(place[0], "explore", place[2]):
            _compare(line, "explore/", stored, label, findings)
        if place[1] == "evaluate" and not small.lost_evaluation(place[0], place[2], place[3]):
            for tally in stored:
                task = f"evaluate/{tally.task}/"
                _compare(line, task, [tally], f"{label}, {tally.task}", findings)
    for key, result in small.phases.items():
        iteration, phase, *policy = key.split("/", 2)
        if phase == "evaluate":
            found = lines.get((int(iteration), "evaluate", 0, policy[0]), {})
            wanted = {f"evaluate/{name}": value for name, value in result["metrics"].items()}
            is_same = all(found.get(name) == value for name, value in wanted.items())
            findings.expect(
                LOGGED, METRICS, f"{key} as in the manifest", stored=is_same, recorded=True
            )


def _compare(
    line: Mapping[str, Any], prefix: str, stored: Sequence[Tally], label: str, findings: Findings
) -> None:
    rows = _sum(stored, "num_rows")
    total = max(1, rows)
    correct = _sum(stored, "num_correct") / total
    numbers: dict[str, float] = {
        "trajectories_count": rows,
        "samples_count": rows,
        "problems_count": _sum(stored, "num_problems"),
        "sampled_tokens_count": _sum(stored, "num_tokens"),
        "reward_mean": sum(tally.reward for tally in stored) / total,
        "correct_frac": correct,
        f"avg@{stored[0].most_samples if stored else 0}": correct,
        "truncated_frac": _sum(stored, "num_truncated") / total,
        "verdict_error_frac": _sum(stored, "num_errors") / total,
    }
    for name, value in numbers.items():
        recorded = line.get(prefix + name)
        findings.expect(LOGGED, METRICS, f"{label}, {name}", stored=value, recorded=recorded)


def _check_selections(
    small: SmallFiles, tallies: Sequence[Tally], run_dir: Path, findings: Findings
) -> None:
    is_accumulated = (small.config.get("expert") or {}).get("window") == "accumulated"
    for key, recorded in small.phases.items():
        iteration, phase, *_ = key.split("/")
        if phase != "select":
            continue
        last = int(iteration)
        window = range(1 if is_accumulated else last, last + 1)
        pool = [t for t in tallies if t.phase == "explore" and t.iteration in window]
        pool_counts = [("pool_count", "num_rows"), ("successes_count", "num_successes")]
        if any(small.lost(f"{i}/explore") for i in window):
            pool_counts = []
        elif RESCORED_KEY in small.phases:
            del pool_counts[1]  # selected by the old verdicts
        for what, field in pool_counts:
            total = _sum(pool, field)
            findings.expect(
                COUNTS, MANIFEST, f"{key}, {what}", stored=total, recorded=recorded.get(what)
            )
        try:
            problems = read_problems(run_dir, last)
        except StoreError as error:
            findings.add(COUNTS, f"expert/iter-{last:03d}-problems.parquet", str(error))
            continue
        kept = pc.sum(problems["num_kept"]).as_py() or 0
        examples = small.num_examples(run_dir, last)
        for what, stored in (
            ("problems_seen_count", len(problems)),
            ("kept_count", kept),
            ("kept_count", examples),
        ):
            findings.expect(
                COUNTS, MANIFEST, f"{key}, {what}", stored=stored, recorded=recorded.get(what)
            )


def _label(tally: Tally) -> str:
    return f"{tally.policy} after step {tally.step}" if tally.step else tally.policy


def _sum(tallies: Iterable[Tally], field: str) -> int:
    return sum(int(getattr(tally, field)) for tally in tallies)
