"""A run directory, read: what every page, table and picture of a run asks of its small files.

One `Run` answers for config, manifest and logs: which phases are done, what kind a policy is, where
a line stands on the axis of RL steps, what was measured, what it cost. It judges nothing and draws
nothing. Trajectories are read by `store.trajectories`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rloop.errors import StoreError
from rloop.evaluation.intervals import Estimate
from rloop.observe.metric_keys import split_key, training_accuracy
from rloop.observe.run_log import read_lines, read_metrics
from rloop.store.records import EVALUATION_KEY, check_logged, read_object, read_record
from rloop.types import PolicyKind, policy_kind

FILES = ("recipe.yaml", "config.json", "manifest.json", "metrics.jsonl")
PHASES = ("coldstart", "explore", "select", "finetune", "evaluate")
CLOCK_S = 0.002
"""Starts are logged in milliseconds."""

Row = dict[str, Any]
"""One JSON object of a log."""


@dataclass(frozen=True, slots=True)
class Span:
    """An exploration on the axis of RL steps. Example: Span(iteration=2, start=20, end=40)."""

    iteration: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """The small files of a run directory; a file that is not there yet is empty.

    Example: Run(directory=Path("runs/demo"), config={"name": "demo"}, manifest={"phases": {}},
    metrics=[{"iteration": 0, "phase": "evaluate", ...}])
    """

    directory: Path
    recipe_text: str = ""
    config: Row = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    manifest: Row = field(default_factory=dict)
    metrics: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)

    def rows(self, phase: str) -> list[Row]:
        """Return the metrics lines of a phase, in the order in which they were written."""
        return [row for row in self.metrics if row.get("phase") == phase]

    # What it is, and how far

    @property
    def name(self) -> str:
        """Name of the run; of an evaluation, what was measured."""
        if self.is_evaluation:
            return f"Evaluation of {Path(self.config['policy']['path']).name}"
        return str(self.config.get("name") or self.directory.name)

    @property
    def phases(self) -> Mapping[str, Row]:
        """The complete phases by key (`2/finetune`, `2/evaluate/iter-002`) with their results."""
        found: Mapping[str, Row] = self.manifest.get("phases", {})
        return found

    @property
    def is_evaluation(self) -> bool:
        """Whether it is the directory of `rloop eval`: measured, never trained."""
        return bool(self.config) and EVALUATION_KEY in self.phases

    @property
    def is_plain_rl(self) -> bool:
        """Whether an iteration ends with RL's own weights, without fine-tuning."""
        return self.config.get("finetune") is None and self.config.get("mix") is None

    @property
    def confidence(self) -> float:
        """Of every interval of the run."""
        return float(self.config.get("evaluate", {}).get("confidence", 0.95))

    @property
    def expected_phases(self) -> list[str]:
        """The keys of the phases that the recipe leads to, in their order."""
        config = self.config
        if not config.get("explore"):
            return []
        if self.is_evaluation:
            return [f"0/evaluate/{Path(config['policy']['path']).name}"]
        keys = ["0/evaluate/base"]
        if config.get("coldstart"):
            keys += ["0/coldstart", "0/evaluate/coldstart"]
        for number in range(1, int(config.get("iterations", 1)) + 1):
            keys.append(f"{number}/explore")
            if config.get("finetune") is not None:
                keys += [f"{number}/{name}" for name in ("select", "finetune")]
            if config.get("mix") is not None:
                keys.append(f"{number}/mix")
            if not self.is_plain_rl:
                keys.append(f"{number}/evaluate/iter-{number:03d}")
        return keys

    @property
    def is_complete(self) -> bool:
        """Whether the last phase is complete; of an evaluation, whether it has its numbers."""
        if self.is_evaluation:
            return bool(self.rows("evaluate"))
        expected = self.expected_phases
        return bool(expected) and expected[-1] in self.phases

    # Policies

    def kind(self, line: Mapping[str, Any]) -> PolicyKind:
        """Return the kind of a line's policy; old logs, which do not say, by its name.

        An evaluation measures one policy for its own sake, which is `kept` whatever its name.
        """
        if self.is_evaluation:
            return "kept"
        kind: PolicyKind = line.get("policy_kind") or policy_kind(str(line.get("policy")))
        return kind

    def is_explored(self, line: Mapping[str, Any]) -> bool:
        """Whether a line is about RL's weights inside an iteration."""
        return self.kind(line) == "explored"

    @cached_property
    def reference(self) -> str:
        """The policy that the loop pairs its iterations with: the cold start, else the base."""
        measured = {row.get("policy") for row in self.rows("evaluate")}
        return "coldstart" if "coldstart" in measured else "base"

    def goes_on(self, policy: str, *, is_explored: bool, is_last: bool) -> bool:
        """Whether the loop begins with a measured policy, or goes on with it.

        Plain RL goes on with an iteration's last weights; the base is left behind by a cold start.
        """
        if is_explored:
            return self.is_plain_rl and is_last
        return policy not in {"base", "coldstart"} - {self.reference}

    def could_end_with(self) -> list[tuple[int, Row]]:
        """Return (RL steps so far, evaluate line) of each policy that the run could hand over.

        The first is what it began with. Plain RL could end with any of its measured weights.
        """
        return [
            (self.position(line), line)
            for line in self.rows("evaluate")
            if self.is_plain_rl or not self.is_explored(line)
        ]

    # The axis of RL steps, counted on from iteration to iteration

    @cached_property
    def spans(self) -> list[Span]:
        """The explorations that have begun, laid end to end."""
        lengths: dict[int, int] = {}
        for row in self.metrics:
            if row.get("phase") == "explore" or self.is_explored(row):
                iteration = int(row["iteration"])
                lengths[iteration] = max(lengths.get(iteration, 0), int(row["step"]))
        spans: list[Span] = []
        for iteration, length in sorted(lengths.items()):
            start = spans[-1].end if spans else 0
            spans.append(Span(iteration, start, start + length))
        return spans

    @property
    def num_steps(self) -> int:
        """RL steps that have begun, in all iterations."""
        return self.spans[-1].end if self.spans else 0

    def place(self, iteration: int, step: int) -> Row:
        """Return where an RL step stands: x, iteration, step."""
        spans = (span.start for span in self.spans if span.iteration == iteration)
        return {"x": next(spans, self.num_steps) + step, "iteration": iteration, "step": step}

    def position(self, line: Mapping[str, Any]) -> int:
        """Return where a line stands: a policy of iteration i at the end of its exploration."""
        iteration = int(line["iteration"])
        span = next((span for span in self.spans if span.iteration == iteration), None)
        if span is None:
            return self.num_steps if iteration else 0
        return span.start + int(line["step"]) if self.is_explored(line) else span.end

    def explored(self, key: str) -> list[Row]:
        """Return a point per RL step that has `explore/KEY`: x, iteration, step and value."""
        return [
            self.place(line["iteration"], line["step"]) | {"value": line[f"explore/{key}"]}
            for line in self.rows("explore")
            if line.get(f"explore/{key}") is not None
        ]

    @property
    def accuracy_by_step(self) -> dict[tuple[int, int], float]:
        """The fraction of completions that is correct, by (iteration, RL step)."""
        return {
            (int(row["iteration"]), int(row["step"])): value
            for row in self.rows("explore")
            if (value := training_accuracy(row)) is not None
        }

    # Evaluations

    @property
    def tasks(self) -> list[str]:
        """The held-out tasks in the order of the log."""
        lines = self.rows("evaluate")
        return list(dict.fromkeys(task for line in lines for task, _, _ in estimates(line)))

    # What it cost

    def sampled_tokens(self, phase: str) -> int | None:
        """Return the tokens sampled in a phase over the run; None where that was not logged."""
        return sampled_tokens(self.rows(phase))

    def total(self, phase: str, key: str) -> int | None:
        """Return the sum of a count over a phase's lines; None where it was not logged."""
        found = [
            value for row in self.rows(phase) if (value := row.get(f"{phase}/{key}")) is not None
        ]
        return int(sum(found)) if found else None

    def rl_tokens_until(self, iteration: int, step: float) -> int:
        """Return the tokens sampled in RL up to and with a step of an iteration."""
        return sum(
            row.get("explore/sampled_tokens_count") or 0
            for row in self.rows("explore")
            if (row["iteration"], row["step"]) <= (iteration, step)
        )

    @property
    def budgets(self) -> list[Row]:
        """The phases that ran, in the order of the method: phase, seconds, tokens sampled, share
        of all time, tokens_per_s; None where it was not recorded, or nothing was sampled.
        """
        seconds = phase_seconds(self.events)
        total = sum(seconds.values())
        found = []
        for phase in PHASES:
            tokens, spent = self.sampled_tokens(phase), seconds.get(phase)
            if spent is not None or tokens is not None:
                share = spent / total if spent is not None and total else None
                rate = tokens / spent if tokens and spent else None
                row = {"phase": phase, "seconds": spent, "tokens": tokens}
                found.append(row | {"share": share, "tokens_per_s": rate})
        return found


def temperatures_folder(run_dir: Path, policy: str, samples: int) -> Path:
    """Return where a run measures a policy at several temperatures, with n samples per problem."""
    return run_dir / "temperatures" / f"{policy}-n{samples}"


def read_run(run_dir: Path) -> Run:
    """Read the small files of a run directory; a torn last line of a log is left out."""
    if not is_run(run_dir):
        raise StoreError(
            f"{run_dir} is not a run directory: it has none of {', '.join(FILES)}. "
            "Name the folder that `rloop run` wrote."
        )

    def optional(name: str, read: Callable[[Path], Row]) -> Row:
        path = run_dir / name
        return read(path) if path.exists() else {}

    recipe, manifest = run_dir / "recipe.yaml", optional("manifest.json", read_record)
    check_logged(run_dir, manifest)
    return Run(
        directory=run_dir,
        recipe_text=recipe.read_text(errors="replace") if recipe.exists() else "",
        config=optional("config.json", read_object),
        environment=optional("environment.json", read_object),
        manifest=manifest,
        metrics=read_metrics(run_dir),
        events=read_lines(run_dir / "events.jsonl"),
    )


def is_run(path: Path) -> bool:
    """Whether a folder holds a run or an evaluation."""
    return any((path / name).exists() for name in FILES)


def estimates(line: Mapping[str, Any]) -> Iterator[tuple[str, str, Estimate]]:
    """Yield (task, metric, estimate) of an evaluate line; a task's name may hold slashes."""
    for key in line:
        found = split_key(key.removeprefix("evaluate/"))
        if found is not None and (value := estimate(line, key)) is not None:
            yield *found, value


def estimate(line: Mapping[str, Any], key: str) -> Estimate | None:
    """Return the estimate at a key; ends that were not recorded count as the value itself."""
    value = line.get(key)
    if value is None:
        return None
    low, high = (value if (end := line.get(f"{key}_{n}")) is None else end for n in ("low", "high"))
    return Estimate(value=value, low=low, high=high)


def sampled_tokens(lines: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the tokens that lines say were sampled; an evaluate line has a count a task."""
    found = [
        value
        for line in lines
        for key, value in line.items()
        if key.endswith("/sampled_tokens_count") and value is not None
    ]
    return int(sum(found)) if found else None


def phase_seconds(events: Sequence[Row]) -> dict[str, float]:
    """Return the time of each phase; an event inside another one counts for its own phase alone.

    Example: an exploration of 100 s with an evaluation of 20 s in it gives explore 80, evaluate 20.
    """
    spent: dict[str, float] = defaultdict(float)
    for event, seconds in _own_seconds(events):
        spent[event["phase"]] += seconds
    return dict(spent)


def iteration_seconds(events: Sequence[Row]) -> list[Row]:
    """Return the same by iteration, as rows: iteration, phase, seconds."""
    spent: dict[tuple[int, str], float] = defaultdict(float)
    for event, seconds in _own_seconds(events):
        spent[event["iteration"], event["phase"]] += seconds
    return [
        {"iteration": iteration, "phase": phase, "seconds": seconds}
        for (iteration, phase), seconds in sorted(spent.items())
    ]


def _own_seconds(events: Sequence[Row]) -> Iterator[tuple[Row, float]]:
    """Yield events with their time, and those around them again with the time to take away."""
    around: list[Row] = []
    timed = [event for event in events if event.get("phase") and "seconds" in event]
    for event in sorted(timed, key=lambda event: (event["start"], -event["seconds"])):
        while around and event["start"] >= around[-1]["start"] + around[-1]["seconds"] - CLOCK_S:
            around.pop()
        if around:
            yield around[-1], -event["seconds"]
        yield event, event["seconds"]
        around.append(event)
