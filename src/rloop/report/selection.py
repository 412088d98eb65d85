"""How the expert set came about: trajectories left after each sieve, problems by success rate."""

from collections import Counter
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
    """Return an iteration's candidate problems by success rate: low, high, outcome, count, rank.

    A bin holds its lower end; the last one holds 1 as well.
    """
    table = read_problems(run_dir, iteration).select(["success_rate", "outcome"])
    counts = Counter((_bin(row["success_rate"]), str(row["outcome"])) for row in table.to_pylist())
    ranks = list(OUTCOMES)
    return [
        {
            "low": index / NUM_BINS,
            "high": (index + 1) / NUM_BINS,
            "outcome": OUTCOMES[outcome],
            "count": number,
            "rank": ranks.index(outcome),
        }
        for (index, outcome), number in sorted(counts.items())
    ]


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
