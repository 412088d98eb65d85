"""The pictures of docs/results.md, from the folder of a sweep.

    python proof/pictures.py runs/proof/small docs/images [runs/proof/sensitivity]

Writes proof-main.png, proof-methods.png and proof-dynamics.png, and proof-sensitivity.png where a
folder of sweeps with one changed value each is named too.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rloop.evaluation.checkpoints import Checkpoint, read_checkpoints, solved_matrix
from rloop.evaluation.exploration import step_diversity, survey_exploration
from rloop.evaluation.forgetting import forgetting
from rloop.methods import METHODS, method_title
from rloop.observe.run_log import read_metrics
from rloop.store.store import TrajectoryStore

mpl.use("Agg")
TASKS = {"held_out": "held out", "shifted": "shifted"}
RL, RLOOP = METHODS["rl"].title, METHODS["rloop"].title
COLORS = {RL: "#c0392b", RLOOP: "#1f5fa8"}
BASE = "#555555"


@dataclass(frozen=True)
class Run:
    """One run of a sweep, read."""

    directory: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved recipe."""
        found: dict[str, Any] = json.loads((self.directory / "config.json").read_text())
        return found

    @cached_property
    def title(self) -> str:
        """What its method is called."""
        return method_title(self.config)

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """Its metrics."""
        return read_metrics(self.directory)

    def of(self, phase: str) -> list[dict[str, Any]]:
        """Return the metrics of a phase."""
        return [line for line in self.lines if line["phase"] == phase]

    def handed_over(self) -> list[tuple[int, dict[str, Any]]]:
        """Return (RL steps so far, metrics) of base and of each policy it could have ended with."""
        is_plain = self.config["finetune"] is None and not self.config["explore"]["average_every"]
        steps = 0
        done: dict[int, int] = {}
        for line in self.of("explore"):
            steps += 1
            done[line["iteration"]] = steps
        found = []
        for line in self.of("evaluate"):
            is_kept = not line["policy"].startswith("explored-")
            if is_kept or is_plain:
                found.append((done.get(line["iteration"], 0) if is_kept else line["step"], line))
        return found


def read_sweep(folder: Path) -> dict[str, list[Run]]:
    """Return the runs of a sweep by the title of their method."""
    found: dict[str, list[Run]] = {}
    for path in sorted(folder.glob("*/config.json")):
        run = Run(path.parent)
        found.setdefault(run.title, []).append(run)
    return found


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
            base = sweep[RL][0].handed_over()[0][1][f"evaluate/{task}/{metric}"]
            ax.axhline(base, color=BASE, linewidth=1, linestyle=":")
            ax.set_title(f"{metric}, {words}", fontsize=11, loc="left")
            _bare(ax)
    axes[0, 0].legend(frameon=False)
    for ax in axes[1]:
        ax.set_xlabel("RL steps, all iterations together")
    _save(figure, path)


def _along(ax: Axes, runs: Sequence[Run], key: str, color: str, label: str) -> None:
    curves = [[(steps, line[key]) for steps, line in run.handed_over()] for run in runs]
    for curve in curves:
        ax.plot(*zip(*curve, strict=True), color=color, linewidth=0.7, alpha=0.35)
    steps = [step for step, _ in curves[0]]
    values = np.array([[value for _, value in curve] for curve in curves])
    ax.plot(steps, values.mean(0), color=color, linewidth=2.4, marker="o", label=label)


def draw_methods(sweep: dict[str, list[Run]], path: Path) -> None:
    """Draw each method's last policy as a point: avg@n against pass@32, with the spread of seeds."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    samples = next(iter(sweep.values()))[0].config["evaluate"]["samples"]
    for ax, (task, words) in zip(figure.subplots(1, 2), TASKS.items(), strict=True):
        keys = [f"evaluate/{task}/{metric}" for metric in (f"avg@{samples}", "pass@32")]
        base = next(iter(sweep.values()))[0].handed_over()[0][1]
        ax.plot(base[keys[0]], base[keys[1]], marker="*", markersize=14, color=BASE)
        ax.annotate("base", (base[keys[0]], base[keys[1]]), (7, 4), textcoords="offset points")
        for index, (title, runs) in enumerate(sweep.items()):
            last = np.array([[run.handed_over()[-1][1][key] for key in keys] for run in runs])
            x, y = last.mean(0)
            spread = last.std(0, ddof=1) if len(runs) > 1 else np.zeros(2)
            color = COLORS.get(title, mpl.color_sequences["Dark2"][index % 8])
            ax.errorbar(x, y, *spread[::-1], marker="o", color=color, capsize=2, linewidth=1)
            ax.annotate(title, (x, y), (6, 4), textcoords="offset points", fontsize=8, color=color)
        ax.set_xlabel(f"avg@{samples}")
        ax.set_ylabel("pass@32")
        ax.set_title(f"{words}: last policies", fontsize=11, loc="left")
        ax.margins(0.15)
        _bare(ax)
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
            _curves(ax, title, [_column(run, key) for run in sweep[title]])
        ax.set_title(words, fontsize=11, loc="left")
    axes[0, 2].set_yscale("log")
    axes[0, 0].legend(frameon=False)
    for title in (RL, RLOOP):
        _curves(axes[1, 0], title, [_diversity(run) for run in sweep[title]], smooth=1)
    axes[1, 0].set_title("1 - similarity within a group", fontsize=11, loc="left")
    for ax, task in zip(axes[1, 1:], TASKS, strict=True):
        for title in (RL, RLOOP):
            curves = [_forgotten(run, task) for run in sweep[title]]
            steps = [step for step, _ in curves[0]]
            values = np.array([[value for _, value in curve] for curve in curves])
            ax.plot(steps, values.mean(0), color=COLORS[title], marker="o")
        ax.set_title(f"forgotten of what the base solved, {TASKS[task]}", fontsize=11, loc="left")
    for ax in axes.flat:
        _bare(ax)
        ax.set_xlabel("RL steps")
    _save(figure, path)


def _column(run: Run, key: str) -> list[float]:
    return [line[key] if line[key] is not None else np.nan for line in run.of("explore")]


def _diversity(run: Run) -> list[float]:
    store = TrajectoryStore(run.directory)
    return [row.diversity for row in step_diversity(store, survey_exploration(store))]


def _forgotten(run: Run, task: str) -> list[tuple[int, float]]:
    """Return (RL steps, problems that the base solved and this policy does not)."""
    steps = {(line["policy"], line["step"]): at for at, line in run.handed_over()}
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


def _curves(ax: Axes, title: str, curves: list[list[float]], smooth: int = 5) -> None:
    length = min(map(len, curves))
    values = np.array([curve[:length] for curve in curves])
    mean = np.nanmean(values, axis=0)
    kernel = np.ones(smooth) / smooth
    steps = np.arange(1, length + 1)
    for curve in values:
        ax.plot(steps, curve, color=COLORS[title], linewidth=0.5, alpha=0.2)
    inside = slice(smooth // 2, length - smooth // 2)
    smoothed = np.convolve(mean, kernel, "valid")
    ax.plot(steps[inside], smoothed, color=COLORS[title], linewidth=2, label=title)


def draw_sensitivity(folder: Path, reference: dict[str, list[Run]], path: Path) -> None:
    """Draw RLoop's last policy for each sweep with one changed value, beside the recipe's own."""
    changed = {each.name: read_sweep(each) for each in sorted(folder.iterdir()) if each.is_dir()}
    rows = {"the recipe": reference[RLOOP], **{n: r[next(iter(r))] for n, r in changed.items() if r}}
    figure = Figure(figsize=(11, 0.32 * len(rows) + 1.4), layout="constrained")
    samples = reference[RLOOP][0].config["evaluate"]["samples"]
    metrics = [(task, m) for task in TASKS for m in (f"avg@{samples}", "pass@32")]
    for ax, (task, metric) in zip(figure.subplots(1, 4, sharey=True), metrics, strict=True):
        key = f"evaluate/{task}/{metric}"
        own = np.mean([run.handed_over()[-1][1][key] for run in reference[RLOOP]])
        ax.axvline(float(own), color=COLORS[RLOOP], linewidth=1, linestyle=":")
        for place, runs in enumerate(rows.values()):
            values = [run.handed_over()[-1][1][key] for run in runs]
            ax.plot(values, [place] * len(values), ".", color=COLORS[RLOOP], alpha=0.5)
            ax.plot(np.mean(values), place, "o", color=COLORS[RLOOP])
        ax.set_yticks(range(len(rows)), list(rows))
        ax.set_title(f"{metric}, {TASKS[task]}", fontsize=10, loc="left")
        _bare(ax)
    _save(figure, path)


def _bare(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, alpha=0.25)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    sys.stdout.write(f"{path}\n")


def main(folder: Path, images: Path, sensitivity: Path | None = None) -> None:
    """Draw what the folders have."""
    sweep = read_sweep(folder)
    images.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[dict[str, list[Run]], Path], None]] = {
        "proof-main.png": draw_main,
        "proof-methods.png": draw_methods,
        "proof-dynamics.png": draw_dynamics,
    }
    for name, draw in pictures.items():
        draw(sweep, images / name)
    if sensitivity is not None:
        draw_sensitivity(sensitivity, sweep, images / "proof-sensitivity.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
