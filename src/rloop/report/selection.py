"""How the expert set came about: trajectories left after each sieve, problems by success rate."""

from collections import Counter
from math import lcm
from pathlib import Path

from rloop.report.run_record import Row, RunRecord
from rloop.report.words import count
from rloop.store.expert import read_problems

STAGES = {
    "pool_count": "all sampled",
    "successes_count": "successes",
    "hard_count": "on hard problems",
    "deduplicated_count": "different",
    "kept_count": "kept",
}

OUTCOMES = {"not_solved": "not solved", "kept": "kept", "too_easy": "too easy"}

NUM_BINS = 10
MAX_RATES = 24
"""Up to here possible success rates have a bin each."""


def funnel_rows(record: RunRecord) -> list[Row]:
    """Return a row per iteration and sieve: iteration, stage, count and a label for the bar."""
    rows = []
    for line in record.rows("select"):
        pool = line.get("select/pool_count")
        for key, stage in STAGES.items():
            number = line.get(f"select/{key}")
            if number is None:
                continue
            share = f" ({number / pool:.0%})" if pool and key != "pool_count" else ""
            label = f"{count(number)}{share}"
            place = {"iteration": line["iteration"], "stage": stage}
            rows.append({**place, "count": number, "label": label})
    return rows


def problem_sentences(record: RunRecord) -> list[str]:
    """Return, by iteration, how many problems seen are in the expert set, and why not all."""
    sentences = []
    for line in record.rows("select"):
        counts = [
            (line.get(f"select/problems_{key}_count"), said)
            for key, said in {"seen": "seen", **OUTCOMES}.items()
        ]
        known = [f"{number} {said}" for number, said in counts if number is not None]
        if known:
            sentences.append(f"Problems of iteration {line['iteration']}: {', '.join(known)}.")
    return sentences


def success_rate_rows(run_dir: Path, iteration: int) -> list[Row]:
    """Return an iteration's candidate problems by success rate: low, high, rate, outcome, ...

    Where few rates are possible, as k/8 in groups of 8, each has a bin around it; else a bin is a
    tenth, which holds its lower end; the last one holds 1 as well. `rate` says it in words.
    """
    columns = ["success_rate", "outcome", "num_trajectories"]
    table = read_problems(run_dir, iteration).select(columns)
    sizes = {number or MAX_RATES + 1 for number in table["num_trajectories"].to_pylist()}
    num_rates = lcm(*sizes)
    has_many = num_rates > MAX_RATES
    counts: Counter[tuple[int, str]] = Counter()
    for row in table.to_pylist():
        rate = row["success_rate"]
        counts[_bin(rate) if has_many else round(rate * num_rates), str(row["outcome"])] += 1
    ranks = list(OUTCOMES)
    return [
        {
            **(_tenth(index) if has_many else _around(index, num_rates)),
            "outcome": OUTCOMES[outcome],
            "count": number,
            "rank": ranks.index(outcome),
        }
        for (index, outcome), number in sorted(counts.items())
    ]


def _tenth(index: int) -> Row:
    low, high = index / NUM_BINS, (index + 1) / NUM_BINS
    return {"low": low, "high": high, "rate": f"{low:.0%} to {high:.0%}"}


def _around(index: int, num_rates: int) -> Row:
    """Return the bin around a possible rate, cut at 0 and 1. Example: 1 of 8 -> 1/16 to 3/16."""
    low, high = (index - 0.5) / num_rates, (index + 0.5) / num_rates
    return {"low": max(0.0, low), "high": min(1.0, high), "rate": f"{index}/{num_rates}"}


def tuning_rows(record: RunRecord) -> list[Row]:
    """Return the loss of each update of the supervised phases: policy, update, value."""
    return [
        {"policy": line["policy"], "update": line["step"], "value": line[f"{phase}/loss_mean"]}
        for phase in ("coldstart", "finetune")
        for line in record.rows(phase)
        if line.get(f"{phase}/loss_mean") is not None
    ]


def selected_iterations(record: RunRecord) -> list[int]:
    """Return the iterations whose problems were reported by their selection."""
    iterations = sorted({int(line["iteration"]) for line in record.rows("select")})
    folder = record.directory / "expert"
    return [i for i in iterations if (folder / f"iter-{i:03d}-problems.parquet").exists()]


def _bin(success_rate: float) -> int:
    return min(NUM_BINS - 1, int(success_rate * NUM_BINS))
