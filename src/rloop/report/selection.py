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

OUTCOMES = {
    "seen": "seen",
    "kept": "in the expert set",
    "too_easy": "solved too often",
    "not_solved": "not solved",
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
    """Return, by iteration, how many problems seen are in the expert set, and why not all."""
    sentences = []
    for line in record.rows("select"):
        counts = [
            (line.get(f"select/problems_{key}_count"), said) for key, said in OUTCOMES.items()
        ]
        known = [f"{number} {said}" for number, said in counts if number is not None]
        if known:
            sentences.append(f"Problems of iteration {line['iteration']}: {', '.join(known)}.")
    return sentences
