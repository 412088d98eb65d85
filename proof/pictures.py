"""The pictures of docs/results/small.md, from the folder of a sweep.

    python proof/pictures.py runs/proof/small docs/images --rates runs/proof/rate-*

Writes proof-main.png, proof-methods.png and proof-dynamics.png; proof-rates.png where sweeps at
other learning rates are named, and proof-sensitivity.png where a folder of sweeps with one changed
value each is (`--sensitivity DIR`).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rloop.evaluation.checkpoints import Checkpoint, read_checkpoints, solved_matrix
from rloop.evaluation.forgetting import forgetting
from rloop.evaluation.similarity import step_diversity, survey_exploration
from rloop.recipe.methods import METHODS, method_title
from rloop.run_directory import Run, read_run
from rloop.store.trajectories import TrajectoryStore

mpl.use("Agg")
TASKS = {"held_out": "held out", "shifted": "shifted"}
RL, RLOOP = METHODS["rl"].title, METHODS["rloop"].title
COLORS = {RL: "#c0392b", RLOOP: "#1f5fa8"}
BASE = "#555555"


def read_sweep(folder: Path) -> dict[str, list[Run]]:
    """Return the complete runs of a sweep by the title of their method."""
    found: dict[str, list[Run]] = {}
    for path in sorted(folder.glob("*/config.json")):
        run = read_run(path.parent)
        if run.is_complete:
            found.setdefault(method_title(run.config), []).append(run)
    return found


def base_value(runs: Sequence[Run], key: str) -> float:
    """Return a metric of the base, which each run measures itself: the mean."""
    return float(np.mean([run.could_end_with()[0][1][key] for run in runs]))


def draw_main(sweep: dict[str, list[Run]], path: Path) -> None:
    """Draw avg@n and pass@32 of what plain RL and RLoop would hand over, along the RL steps."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    samples = next(iter(sweep.values()))[0].config["evaluate"]["samples"]
    for row, (task, words) in enumerate(TASKS.items()):
        for column, metric in enumerate((f"avg@{samples}", "pass@32")):
            ax = axes[row, column]
            for title in (RL, RLOOP):
                _along(ax, sweep[title], f"evaluate/{task}/{metric}", COLORS[title], title)
            base = base_value(sweep[RL], f"evaluate/{task}/{metric}")
            ax.axhline(base, color=BASE, linewidth=1, linestyle=":")
            ax.set_title(f"{metric}, {words}", fontsize=11, loc="left")
            _bare(ax)
    axes[0, 0].legend(frameon=False)
    for ax in axes[1]:
        ax.set_xlabel("RL steps, all iterations together")
    _save(figure, path)


def _along(ax: Axes, runs: Sequence[Run], key: str, color: str, label: str) -> None:
    curves = [[(steps, line[key]) for steps, line in run.could_end_with()] for run in runs]
    for curve in curves:
        ax.plot(*zip(*curve, strict=True), color=color, linewidth=0.7, alpha=0.35)
    steps = [step for step, _ in curves[0]]
    values = np.array([[value for _, value in curve] for curve in curves])
    ax.plot(steps, values.mean(0), color=color, linewidth=2.4, marker="o", label=label)


def draw_methods(sweep: dict[str, list[Run]], path: Path) -> None:
    """Draw each method's last policy: avg@n against pass@32, with the spread of its seeds."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    samples = next(iter(sweep.values()))[0].config["evaluate"]["samples"]
    for ax, (task, words) in zip(figure.subplots(1, 2), TASKS.items(), strict=True):
        keys = [f"evaluate/{task}/{metric}" for metric in (f"avg@{samples}", "pass@32")]
        base = [base_value(sweep[RL], key) for key in keys]
        ax.plot(*base, marker="*", markersize=14, color=BASE)
        ax.annotate("base", (base[0], base[1]), (7, 4), textcoords="offset points")
        for index, (title, runs) in enumerate(sweep.items()):
            last = np.array([[run.could_end_with()[-1][1][key] for key in keys] for run in runs])
            x, y = last.mean(0)
            spread = last.std(0, ddof=1) if len(runs) > 1 else np.zeros(2)
            color = COLORS.get(title, mpl.color_sequences["Dark2"][index % 8])
            bar = {"fmt": "o", "color": color, "capsize": 2, "linewidth": 1}
            ax.errorbar(x, y, *spread[::-1], label=title, **bar)
        ax.set_xlabel(f"avg@{samples}")
        ax.set_ylabel("pass@32")
        ax.set_title(f"{words}: last policies, 1 SD of the seeds", fontsize=11, loc="left")
        _bare(ax)
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    _save(figure, path)


def draw_dynamics(sweep: dict[str, list[Run]], path: Path) -> None:
    """Draw the paper's pictures of training side by side, a mean over seeds."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, 3)
    panels = {
        "training reward": "explore/reward_mean",
        "entropy (nats a token)": "explore/entropy_mean",
        "gradient norm": "explore/grad_norm",
    }
    for ax, (words, key) in zip(axes[0], panels.items(), strict=True):
        for title in (RL, RLOOP):
            _curves(ax, title, [_column(run, key) for run in sweep[title]], smooth=5)
        ax.set_title(words, fontsize=11, loc="left")
    axes[0, 0].legend(frameon=False)
    for title in (RL, RLOOP):
        _curves(axes[1, 0], title, [_diversity(run) for run in sweep[title]], smooth=3)
    axes[1, 0].set_title("difference within a group (4-grams)", fontsize=11, loc="left")
    for ax, task in zip(axes[1, 1:], TASKS, strict=True):
        for title in (RL, RLOOP):
            curves = [_forgotten(run, task) for run in sweep[title]]
            steps = [step for step, _ in curves[0]]
            values = np.array([[value for _, value in curve] for curve in curves])
            ax.plot(steps, values.mean(0), color=COLORS[title], marker="o")
        ax.set_title(f"the base's solved forgotten, {TASKS[task]}", fontsize=11, loc="left")
    for ax in axes.flat:
        _bare(ax)
        ax.set_xlabel("RL steps")
    _save(figure, path)


Points = list[tuple[int, float]]
"""(RL steps, all iterations together; value)."""


def _column(run: Run, key: str) -> Points:
    """Return (RL steps, metric) of each step; NaN where no group had a signal to train on."""
    places = [
        (run.place(line["iteration"], line["step"])["x"], line) for line in run.rows("explore")
    ]
    return [(x, np.nan if (value := line.get(key)) is None else value) for x, line in places]


def _diversity(run: Run) -> Points:
    """Return 1 - similarity of token 4-grams within a problem's group, of some steps."""
    store = TrajectoryStore(run.directory)
    rows = step_diversity(store, survey_exploration(store))
    return [(run.place(row["iteration"], row["step"])["x"], row["diversity"]) for row in rows]


def _forgotten(run: Run, task: str) -> Points:
    """Return (RL steps, problems that the base solved and this policy does not)."""
    steps = {(line["policy"], line["step"]): at for at, line in run.could_end_with()}
    found: list[Checkpoint] = [
        checkpoint
        for checkpoint in read_checkpoints(TrajectoryStore(run.directory))
        if checkpoint.task == task and (checkpoint.policy, checkpoint.step) in steps
    ]
    solved = solved_matrix(found)
    return [
        (steps[checkpoint.policy, checkpoint.step], forgetting(solved[0], row))
        for checkpoint, row in zip(found, solved, strict=True)
    ]


def _curves(ax: Axes, title: str, curves: list[Points], *, smooth: int) -> None:
    """Draw each seed's points thinly, and the mean over seeds and `smooth` neighbours."""
    length = min(map(len, curves))
    steps = np.array([step for step, _ in curves[0]][:length])
    values = np.array([[value for _, value in curve[:length]] for curve in curves])
    for curve in values:
        ax.plot(steps, curve, color=COLORS[title], linewidth=0.5, alpha=0.2)
    width = min(smooth, length)
    mean = np.convolve(np.nanmean(values, axis=0), np.ones(width) / width, "valid")
    first = (width - 1) // 2
    shown = steps[first : first + len(mean)]
    ax.plot(shown, mean, color=COLORS[title], linewidth=2, label=title)


def draw_rates(sweeps: Sequence[dict[str, list[Run]]], path: Path) -> None:
    """Draw the last policies of plain RL and RLoop against RL's learning rate."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    samples = sweeps[0][RL][0].config["evaluate"]["samples"]
    for row, (task, words) in enumerate(TASKS.items()):
        for column, metric in enumerate((f"avg@{samples}", "pass@32")):
            ax, key = axes[row, column], f"evaluate/{task}/{metric}"
            base = base_value(sweeps[0][RL], key)
            ax.axhline(base, color=BASE, linewidth=1, linestyle=":", label="base")
            for title in (RL, RLOOP):
                runs = [run for sweep in sweeps for run in sweep[title]]
                points = sorted((_rate(run), run.could_end_with()[-1][1][key]) for run in runs)
                rates = sorted({rate for rate, _ in points})
                means = [np.mean([v for r, v in points if r == rate]) for rate in rates]
                ax.plot(*zip(*points, strict=True), ".", color=COLORS[title], alpha=0.5)
                ax.plot(rates, means, "o-", color=COLORS[title], linewidth=2.2, label=title)
            ax.set_title(f"{metric}, {words}", fontsize=11, loc="left")
            ax.set_xscale("log")
            ax.set_xticks(rates, [f"{rate:.0e}".replace("e-0", "e-") for rate in rates])
            ax.minorticks_off()
            _bare(ax)
    axes[0, 1].legend(frameon=False)
    for ax in axes[1]:
        ax.set_xlabel("RL's learning rate")
    _save(figure, path)


def _rate(run: Run) -> float:
    return float(run.config["explore"]["optimizer"]["learning_rate"])


def draw_sensitivity(folder: Path, reference: dict[str, list[Run]], path: Path) -> None:
    """Draw the last policy of each sweep with one changed value, best pass@32 first.

    Beside them the recipe itself, of which `folder` has a sweep with as many samples; for plain RL
    it is the reference.
    """
    rows = [("plain RL, the recipe", reference[RL]), *_changed(folder / "rl", "plain RL, ")]
    rows += _changed(folder / "rloop", "")
    figure = Figure(figsize=(12, 0.28 * len(rows) + 1.2), layout="constrained")
    metrics = [(task, metric) for task in TASKS for metric in ("avg", "pass@32")]
    for ax, (task, metric) in zip(figure.subplots(1, 4, sharey=True), metrics, strict=True):
        for place, (name, runs) in enumerate(rows):
            values = [_last(run, task, metric) for run in runs]
            color = COLORS[method_title(runs[0].config)]
            is_recipe = name.endswith("the recipe")
            ax.plot(values, [place] * len(values), ".", color=color, alpha=0.5)
            ax.plot(np.mean(values), place, "D" if is_recipe else "o", color=color)
            if is_recipe:
                ax.axvline(float(np.mean(values)), color=color, linewidth=1, linestyle=":")
        ax.set_yticks(range(len(rows)), [name for name, _ in rows])
        ax.set_title(f"{metric}, {TASKS[task]}", fontsize=10, loc="left")
        _bare(ax)
    _save(figure, path)


def _changed(folder: Path, prefix: str) -> list[tuple[str, list[Run]]]:
    sweeps = {each.name: read_sweep(each) for each in folder.iterdir() if each.is_dir()}
    rows = [(f"{prefix}{name}", runs) for name, sweep in sweeps.items() for runs in sweep.values()]
    task = next(iter(TASKS))
    return sorted(rows, key=lambda row: np.mean([_last(run, task, "pass@32") for run in row[1]]))


def _last(run: Run, task: str, metric: str) -> float:
    """Return a metric of the policy handed over; `avg` is over as many samples as the run has."""
    samples = run.config["evaluate"]["samples"]
    name = f"avg@{samples}" if metric == "avg" else metric
    return float(run.could_end_with()[-1][1][f"evaluate/{task}/{name}"])


def _bare(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, alpha=0.25)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    sys.stdout.write(f"{path}\n")


def main() -> None:
    """Draw what the folders have."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/results/small.md.")
    parser.add_argument("sweep", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--rates", type=Path, nargs="*", default=[])
    parser.add_argument("--sensitivity", type=Path)
    options = parser.parse_args()
    sweep, images = read_sweep(options.sweep), options.images
    missing = {RL, RLOOP} - sweep.keys()
    if missing:
        parser.error(f"{options.sweep} has no run of {' and '.join(sorted(missing))}")
    images.mkdir(parents=True, exist_ok=True)
    draw_main(sweep, images / "proof-main.png")
    draw_methods(sweep, images / "proof-methods.png")
    draw_dynamics(sweep, images / "proof-dynamics.png")
    if options.rates:
        draw_rates([sweep, *map(read_sweep, options.rates)], images / "proof-rates.png")
    if options.sensitivity:
        draw_sensitivity(options.sensitivity, sweep, images / "proof-sensitivity.png")


if __name__ == "__main__":
    main()
