"""Is pass@k of the second ground more than guessing? The measures that guessing cannot raise.

    python proof/guessing.py runs/proof/words/sweep

Prints, for a guesser that writes a random chain of equations over all of a problem's numbers, for
the base and for what plain RL and RLoop hand over: avg@n and pass@n; maj@n, whether the most common
answer is right (self-consistency, Wang et al. 2022; ties count by their share); and the part of the
problems solved in at least a quarter of the samples. Intervals cover seeds and problems.
"""

import runpy
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import numpy as np

from rloop.cli.tables import print_table
from rloop.evaluation.comparison import seed_difference, seed_mean

WORDS = runpy.run_path(str(Path(__file__).parent / "words.py"))
MEASURES = ("avg@n", "pass@n", "maj@n", "solved in a quarter")
Sample = tuple[str | None, bool]
"""(answer, is correct)."""


def measures(samples: Sequence[Sample]) -> tuple[float, float, float, float]:
    """Return the four measures of one problem."""
    rate = float(np.mean([correct for _, correct in samples]))
    counts = Counter(answer for answer, _ in samples if answer is not None)
    most = max(counts.values(), default=0)
    first = [answer for answer, count in counts.items() if count == most]
    right = {answer for answer, correct in samples if correct}
    majority = sum(answer in right for answer in first) / len(first) if first else 0.0
    return rate, float(rate > 0), majority, float(rate >= 1 / 4)


def guesses(problem: str, reference: str, n: int, rng: np.random.Generator) -> list[Sample]:
    """Return n answers of the guesser; none where the problem has not two or three numbers."""
    numbers = tuple(int(text) for text in WORDS["NUMBER"].findall(problem))
    found: list[int] = []
    if 2 <= len(numbers) <= WORDS["LARGEST"]:
        found = [value for value, _ in WORDS["ways"](numbers)]
    if not found:
        return [(None, False)] * n
    goal = float(reference.replace(",", ""))
    drawn: Iterable[int] = rng.choice(found, n)
    return [(str(value), value == goal) for value in drawn]


Table = dict[str, dict[str, list[tuple[float, ...]]]]
"""Measures by who and task: a row a seed and problem, problems in one order."""


def read(sweep: Path) -> tuple[Table, int]:
    """Return the measures of guesser, base and last policies, and the number of seeds."""
    rng = np.random.default_rng(0)
    table: Table = defaultdict(lambda: defaultdict(list))
    runs = {who: sorted(sweep.glob(f"{who}-seed-*/")) for who in ("rl", "rloop")}
    for who, found in runs.items():
        for run in found:
            rows = duckdb.sql(
                f"""select task, problem_id, iteration, step, any_value(prompt_text),
                any_value(reference), list(answer), list(correct)
                from '{run}/trajectories/**/*.parquet' where phase = 'evaluate'
                group by all order by problem_id"""
            ).fetchall()
            kept = [row for row in rows if row[3] == 0 or who == "rl"]
            last = max((row[2], row[3]) for row in kept)
            for task, _, iteration, step, prompt, reference, answers, corrects in kept:
                samples = list(zip(answers, corrects, strict=True))
                if (iteration, step) == last:
                    table[who][task].append(measures(samples))
                if iteration == 0 and who == "rl":
                    table["base"][task].append(measures(samples))
                    drawn = guesses(prompt, reference, len(samples), rng)
                    table["guesser"][task].append(measures(drawn))
    return table, len(runs["rl"])


def main(sweep: Path) -> None:
    """Print a table for each task."""
    table, seeds = read(sweep)
    lines = []
    for task in sorted(table["base"]):
        values = {
            who: np.array(tasks[task]).reshape(seeds, -1, len(MEASURES))
            for who, tasks in table.items()
        }
        for index, measure in enumerate(MEASURES):
            for who in ("guesser", "base", "rl", "rloop"):
                mean = seed_mean(values[who][..., index], confidence=0.95)
                lines.append((task, measure, who, f"{mean.value:.3f}", ""))
            gap = seed_difference(
                values["rloop"][..., index],
                values["rl"][..., index],
                is_paired_by_seed=True,
                confidence=0.95,
            )
            said = f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
            lines[-1] = (*lines[-1][:-1], said)
    print_table(("task", "measure", "who", "mean", "rloop - rl"), lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
