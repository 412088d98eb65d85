"""How the expert set came about: trajectories left after each sieve, by iteration."""

from rloop.report.run_record import Row, RunRecord
from rloop.report.words import count

STAGES = {
    "pool_count": "all sampled",
    "successes_count": "successes",
    "hard_count": "on hard problems",
    "deduplicated_count": "different",
    "kept_count": "kept",
}


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
    """Return, by iteration, on how many of the problems seen the expert set rests."""
    keys = ("iteration", "select/problems_kept_count", "select/problems_seen_count")
    counts = [[line.get(key) for key in keys] for line in record.rows("select")]
    return [
        f"Iteration {iteration}: the expert set rests on {kept} of {seen} problems seen."
        for iteration, kept, seen in counts
        if kept is not None and seen is not None
    ]
