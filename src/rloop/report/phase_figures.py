"""Charts of what RL sampled, of how the expert set came about and was learned, and of the time.

To add a curve of RL is one line in `CURVES`.
"""

from collections import Counter
from collections.abc import Sequence
from math import isnan, lcm
from pathlib import Path
from statistics import fmean

import altair as alt

from rloop.evaluation.checkpoints import MAX_CHECKPOINTS, spread_checkpoints
from rloop.evaluation.similarity import (
    Similarity,
    Survey,
    checkpoint_similarity,
    step_diversity,
    step_similarity,
    survey_exploration,
)
from rloop.report import charts
from rloop.report.charts import BLUE, GREEN, GREY, ORANGE, PURPLE, Figure, Heading
from rloop.report.formatting import count
from rloop.report.held_out import HeldOut
from rloop.report.step_charts import curves_by_step, stacked_areas
from rloop.run_directory import Row, Run, iteration_seconds
from rloop.store.expert import read_problems
from rloop.store.trajectories import TrajectoryStore

CURVES = (
    ("entropy_mean", "Entropy", "Of the policy, nats per sampled token.", ""),
    ("grad_norm", "Gradient norm", "Before clipping.", ""),
    (
        "gap_mean",
        "Sampler-learner gap",
        "Mean absolute difference of a token's log-probability.",
        "",
    ),
    ("completion_tokens_mean", "Completion length", "Mean tokens of a completion.", ""),
    ("truncated_frac", "Truncated completions", "Cut at the length limit.", ".0%"),
)
"""A curve over RL steps each: key of the log, title, caption, number format."""
DIVERSITY = (
    "diversity",
    "Diversity",
    "1 - mean similarity (token 4-grams, Jaccard) of a problem's completions in a step.",
)
ANSWERS = (
    "distinct_answers",
    "Distinct answers",
    "Distinct final answers per problem in a step, averaged over problems.",
)
HEALTH = {"all correct": GREEN, "mixed": BLUE, "all wrong": GREY}
STAGES = {
    "pool_count": "all sampled",
    "successes_count": "successes",
    "hard_count": "on hard problems",
    "deduplicated_count": "different",
    "kept_count": "kept",
}
OUTCOMES = {"not solved": GREY, "kept": BLUE, "too easy": ORANGE}
PHASES = {
    "coldstart": PURPLE,
    "explore": BLUE,
    "select": GREY,
    "finetune": ORANGE,
    "evaluate": GREEN,
}
MAX_HISTOGRAMS = 6
NUM_BINS = 10
MAX_RATES = 24
"""Up to here possible success rates have a bin each."""


def curve_figure(
    run: Run, words: tuple[str, str, str], rows: Sequence[Row], unit: str = ""
) -> Figure | None:
    """Return a curve over RL steps, `words` are its id, title and caption; None without rows."""
    if not rows:
        return None
    first, last = rows[0]["value"], rows[-1]["value"]
    said = f"{words[1]} at {len(rows)} RL steps, from {first:.4g} to {last:.4g}."
    return curves_by_step(Heading(*words, said), run.spans, rows, unit)


# Exploration


def exploration_figures(
    run: Run, store: TrajectoryStore, tasks: Sequence[HeldOut]
) -> list[Figure | None]:
    """Return how different completions are, and what RL was like, step by step."""
    survey = survey_exploration(store)
    found = step_diversity(store, survey)
    steps = [(run.place(one["iteration"], one["step"]), one) for one in found]
    curves = (DIVERSITY, ANSWERS)
    rows = [[place | {"value": one[words[0]]} for place, one in steps] for words in curves]
    return [
        curve_figure(run, words, [row for row in those if not isnan(row["value"])])
        for words, those in zip(curves, rows, strict=True)
    ] + [
        _similarity(*similarity_rows(store, survey, tasks)),
        _health(run),
        *(
            curve_figure(run, (key, title, caption), run.explored(key), unit)
            for key, title, caption, unit in CURVES
        ),
    ]


def similarity_rows(
    store: TrajectoryStore, survey: Survey, tasks: Sequence[HeldOut]
) -> tuple[list[Row], str]:
    """Return the similarity of stretches of RL steps, or of policies: a, b, value, said; of what.

    Stretches that share no problem cannot be compared; then policies are, on the problems of the
    first held-out task. No rows for fewer than two of either.
    """
    found, of = (step_similarity(store, survey) if survey.places else None), "RL steps"
    if found is None or not _is_comparable(found):
        if not tasks:
            return [], ""
        chosen = spread_checkpoints(tasks[0].checkpoints, MAX_CHECKPOINTS)
        found = checkpoint_similarity(store, [tasks[0].checkpoints[index] for index in chosen])
        of = "policies"
    if not _is_comparable(found):
        return [], of
    return [
        {
            "a": a,
            "b": b,
            "value": None if isnan(value) else value,
            "said": f"{value:.3f} over {found.num_shared[i, j]} problems",
        }
        for i, a in enumerate(found.labels)
        for j, b in enumerate(found.labels)
        for value in [float(found.similarity[i, j])]
    ], of


def _is_comparable(found: Similarity) -> bool:
    """Whether any two different columns share a problem."""
    return bool(found.num_shared.sum() > found.num_shared.trace())


def _similarity(rows: Sequence[Row], of: str) -> Figure | None:
    if not rows:
        return None
    most = max(row["value"] or 0.0 for row in rows)
    apart = [row["value"] for row in rows if row["a"] != row["b"] and row["value"] is not None]
    heading = Heading(
        "similarity",
        f"Similarity of {of}",
        "Percent of token 4-grams that two completions of one problem share. Paler cells off the "
        "diagonal mean that the policies differ.",
        f"Mean similarity between different {of}: {fmean(apart):.3f}.",
    )
    side = "iteration: RL steps" if of == "RL steps" else "policy"
    return charts.heatmap(heading, rows, (side, side), BLUE, most or 1.0)


def _health(run: Run) -> Figure | None:
    """Return the fractions of groups that are all correct, mixed and all wrong, stacked."""
    keys = {name: f"explore/groups_{name.replace(' ', '_')}_frac" for name in HEALTH}
    rows = [
        run.place(line["iteration"], line["step"])
        | {name: line.get(key) for name, key in keys.items()}
        for line in run.rows("explore")
        if any(line.get(key) is not None for key in keys.values())
    ]
    if not rows:
        return None
    last = rows[-1]["mixed"]
    end = "" if last is None else f", {last:.0%} mixed at the last step"
    heading = Heading(
        "health",
        "Group health",
        "Only mixed groups carry a learning signal. All correct above, all wrong below.",
        f"Fractions of groups over {len(rows)} RL steps{end}.",
    )
    return stacked_areas(heading, run.spans, rows, HEALTH)


# Selection and fine-tuning


def selection_figures(run: Run) -> list[Figure | None]:
    """Return how the expert sets came about, and how they were learned."""
    limit = (run.config.get("expert") or {}).get("max_success_rate")
    histograms = [
        success_rate_figure(number, success_rate_rows(run.directory, number), limit)
        for number in selected_iterations(run)[-MAX_HISTOGRAMS:]
    ]
    return [_funnel(run), *histograms, _tuning(run)]


def _funnel(run: Run) -> Figure | None:
    """Return trajectories left after each sieve of the selection, by iteration."""
    rows: list[Row] = []
    for line in run.rows("select"):
        pool = line.get("select/pool_count")
        for key, stage in STAGES.items():
            number = line.get(f"select/{key}")
            if number is not None:
                share = f" ({number / pool:.0%})" if pool and key != "pool_count" else ""
                row = {"iteration": line["iteration"], "stage": stage, "count": number}
                rows.append(row | {"label": f"{count(number)}{share}"})
    if not rows:
        return None
    said = "; ".join(f"iteration {row['iteration']}: {row['stage']} {row['count']}" for row in rows)
    heading = Heading(
        "funnel",
        "From all samples to the expert set",
        "Trajectories left after each filter; one bar per iteration, the first on top.",
        f"{said}.",
    )
    columns = {"iteration": "iteration", "stage": "sieve", "count": "trajectories"}
    return charts.labelled_bars(heading, rows, columns)


def problem_sentences(run: Run) -> list[str]:
    """Return, by iteration, how many problems seen are in the expert set, and why not all."""
    sentences = []
    for line in run.rows("select"):
        counts = [
            (line.get(f"select/problems_{name.replace(' ', '_')}_count"), name)
            for name in ("seen", *OUTCOMES)
        ]
        known = [f"{number} {name}" for number, name in counts if number is not None]
        if known:
            sentences.append(f"Problems of iteration {line['iteration']}: {', '.join(known)}.")
    return sentences


def selected_iterations(run: Run) -> list[int]:
    """Return the iterations whose problems were reported by their selection."""
    iterations = sorted({int(line["iteration"]) for line in run.rows("select")})
    folder = run.directory / "expert"
    return [i for i in iterations if (folder / f"iter-{i:03d}-problems.parquet").exists()]


def success_rate_rows(run_dir: Path, iteration: int) -> list[Row]:
    """Return an iteration's candidate problems by success rate: low, high, rate, series, count.

    Where few rates are possible, as k/8 in groups of 8, each has a bin around it; else a bin is a
    tenth, which holds its lower end; the last one holds 1 as well. `rate` says it in words.
    """
    columns = ["success_rate", "outcome", "num_trajectories"]
    problems = read_problems(run_dir, iteration).select(columns).to_pylist()
    num_rates = lcm(*{row["num_trajectories"] or MAX_RATES + 1 for row in problems})
    has_many = num_rates > MAX_RATES
    counts: Counter[tuple[int, str]] = Counter()
    for row in problems:
        rate = row["success_rate"]
        number = min(NUM_BINS - 1, int(rate * NUM_BINS)) if has_many else round(rate * num_rates)
        counts[number, str(row["outcome"]).replace("_", " ")] += 1
    return [
        (_tenth(index) if has_many else _around(index, num_rates))
        | {"series": outcome, "count": number}
        for (index, outcome), number in sorted(counts.items())
    ]


def _tenth(index: int) -> Row:
    low, high = index / NUM_BINS, (index + 1) / NUM_BINS
    return {"low": low, "high": high, "rate": f"{low:.0%} to {high:.0%}"}


def _around(index: int, num_rates: int) -> Row:
    """Return the bin around a possible rate, cut at 0 and 1. Example: 1 of 8 -> 1/16 to 3/16."""
    low, high = (index - 0.5) / num_rates, (index + 0.5) / num_rates
    return {"low": max(0.0, low), "high": min(1.0, high), "rate": f"{index}/{num_rates}"}


def success_rate_figure(
    iteration: int, rows: Sequence[Row], max_success_rate: float | None
) -> Figure | None:
    """Return the histogram of an iteration's problems by success rate, colored by outcome.

    The rule is the hardness threshold.
    """
    if not rows:
        return None
    caption = "Problems in the pool by success rate."
    rule = max_success_rate if max_success_rate is not None and max_success_rate < 1 else None
    if rule is not None:
        caption += f" Dashed: the hardness threshold, {100 * rule:g} %."
    if any(row["series"] == "not solved" and row["low"] > 0 for row in rows):
        caption += (
            " Grey above 0 %: answered right, but only by completions cut at the length limit, "
            "which are not learned from."
        )
    totals = {name: sum(r["count"] for r in rows if r["series"] == name) for name in OUTCOMES}
    said = ", ".join(f"{number} {name}" for name, number in totals.items())
    heading = Heading(
        f"success-rate-{iteration}",
        f"How often problems were solved, iteration {iteration}",
        caption,
        f"Problems by success rate: {said}.",
    )
    encoding = {
        "x": alt.X(
            "low:Q",
            bin="binned",
            title="success rate of a problem in the exploration",
            axis=alt.Axis(format=".0%", grid=False, tickCount=5),
            scale=alt.Scale(domain=[0, 1], nice=False),
        ),
        "x2": "high:Q",
        "y": alt.Y("count:Q", title="problems", stack=True, axis=alt.Axis(tickMinStep=1)),
        "tooltip": [
            alt.Tooltip("rate:N", title="success rate"),
            alt.Tooltip("series:N", title="outcome"),
            alt.Tooltip("count:Q", title="problems"),
        ],
    }
    columns = {"rate": "success rate", "series": "outcome", "count": "problems"}
    return charts.stacked_bars(heading, rows, encoding, OUTCOMES, columns, rule=rule)


def _tuning(run: Run) -> Figure | None:
    """Return the loss of the supervised phases over their updates, a line for each policy."""
    rows = tuning_rows(run)
    if not rows:
        return None
    names = dict.fromkeys(row["series"] for row in rows)
    heading = Heading(
        "tuning",
        "Fine-tuning loss",
        "Mean over the tokens of an update.",
        f"Loss of {len(rows)} updates that made {', '.join(names)}.",
    )
    x = alt.X("x:Q", title="updates in the phase", axis=charts.whole_numbers())
    columns = {"series": "policy", "x": "update", "value": "loss"}
    return charts.lines_with_bands(heading, rows, x, columns, unit="")


def tuning_rows(run: Run) -> list[Row]:
    """Return the loss of each update of the supervised phases: series (policy), x, value."""
    return [
        {"series": line["policy"], "x": line["step"]}
        | dict.fromkeys(charts.VALUES, line[f"{phase}/loss_mean"])
        for phase in ("coldstart", "finetune")
        for line in run.rows(phase)
        if line.get(f"{phase}/loss_mean") is not None
    ]


# Cost


def time_figure(run: Run) -> Figure | None:
    """Return the minutes of each phase, stacked by iteration."""
    rows = [
        {"iteration": r["iteration"], "series": r["phase"], "minutes": r["seconds"] / 60}
        for r in iteration_seconds(run.events)
    ]
    if not rows:
        return None
    iterations = {row["iteration"] for row in rows}
    total = sum(row["minutes"] for row in rows)
    heading = Heading(
        "time",
        "Time by iteration",
        "Iteration 0 is the evaluation of the base, and the cold start if there is one.",
        f"{total:.1f} minutes in {len(iterations)} iterations.",
    )
    encoding = {
        "x": alt.X("minutes:Q", title="minutes", axis=alt.Axis(tickCount=6)),
        "y": alt.Y("iteration:O", title="iteration"),
        "tooltip": [
            "iteration:O",
            alt.Tooltip("series:N", title="phase"),
            alt.Tooltip("minutes:Q", format=".2~f"),
        ],
    }
    columns = {"iteration": "iteration", "series": "phase", "minutes": "minutes"}
    height = max(70, 26 * len(iterations))
    return charts.stacked_bars(heading, rows, encoding, PHASES, columns, height=height)
