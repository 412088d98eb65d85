"""The picture of docs/results/index.md: accuracy against pass@32 over temperatures, by benchmark.

    python proof/curves.py PICTURE "with reach=DIR,DIR" "small=DIR,DIR"

A folder stands for the runs in it. All must have been measured at the same temperatures.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rloop.evaluation.sharpening import Curve, Floats
from rloop.recipe.methods import METHODS
from rloop.report.compare_curves import BASE, method_curves
from rloop.report.compare_runs import find_runs, group_runs, read_compared

mpl.use("Agg")
TASK, K = "held_out", 32
STYLES = {
    BASE: ("base, not trained", "#777777", "o"),
    METHODS["rl"].title: ("plain RL at its best rate", "#c0392b", "s"),
    METHODS["raft"].title: ("RAFT, no RL", "#8e6c0a", "v"),
    METHODS["rloop"].title: ("RLoop", "#1f5fa8", "D"),
    METHODS["accumulated"].title: ("RLoop, accumulated", "#1b7f5c", "^"),
}


def draw(ax: Axes, name: str, folders: list[Path]) -> None:
    """Draw one benchmark; the points of a curve are its temperatures, the highest at the top."""
    runs = [read_compared(path)[0] for path in find_runs(folders)]
    curves = method_curves(group_runs([run for run in runs if run is not None]))[TASK]
    for title, (label, color, marker) in STYLES.items():
        if title in curves:
            average_T, passes_T = _means(curves[title])
            ax.plot(average_T, passes_T, color=color, marker=marker, label=label, linewidth=1.6)
    first = curves[BASE][0]
    temperatures = ", ".join(f"{value:g}" for value in reversed(first.temperatures))
    ax.set_title(f"{name}\ntemperatures {temperatures}, from the top down", fontsize=10)
    ax.set_xlabel(f"accuracy, avg@{first.num_samples}")
    ax.set_ylabel(f"pass@{K}")
    ax.grid(alpha=0.3)


def _means(curves: Sequence[Curve]) -> Floats:
    means: Floats = np.mean([curve.values(K).mean(axis=2) for curve in curves], axis=0)
    return means


def main() -> None:
    """Draw a panel for each benchmark named."""
    parser = argparse.ArgumentParser(description="Draw the picture of docs/results/index.md.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("benchmarks", nargs="+", help="NAME=DIR,DIR,...")
    options = parser.parse_args()
    figure = Figure(figsize=(4.9 * len(options.benchmarks), 4.2), layout="constrained")
    panels = figure.subplots(1, len(options.benchmarks), squeeze=False)[0]
    for ax, benchmark in zip(panels, options.benchmarks, strict=True):
        name, _, folders = benchmark.partition("=")
        draw(ax, name, [Path(folder) for folder in folders.split(",")])
    panels[0].legend(loc="best", fontsize=9)
    figure.savefig(options.picture, dpi=110)


if __name__ == "__main__":
    main()
