"""One axis through all iterations: RL steps counted on from iteration to iteration."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rloop.evaluation.intervals import Estimate
from rloop.report.results import optional_estimate, reference_policy, task_metrics
from rloop.report.run_record import Row, RunRecord

DRIFT_KEY = "evaluate/kl_base_mean"


@dataclass(frozen=True, slots=True)
class Span:
    """An exploration phase on the axis. Example: Span(iteration=2, start=20, end=40)."""

    iteration: int
    start: int
    end: int


class Timeline:
    """The explorations of a run, laid end to end."""

    def __init__(self, record: RunRecord) -> None:
        """Lay out the explorations that have begun."""
        self._record = record
        lengths: dict[int, int] = {}
        for row in record.metrics:
            if row.get("phase") == "explore" or str(row.get("policy")).startswith("explored-"):
                iteration = int(row["iteration"])
                lengths[iteration] = max(lengths.get(iteration, 0), int(row["step"]))
        self.spans: list[Span] = []
        end = 0
        for iteration, length in sorted(lengths.items()):
            self.spans.append(Span(iteration, end, end + length))
            end += length
        self.end = end

    def explore_rows(self, keys: Sequence[str]) -> list[Row]:
        """Return a point per RL step that has any of the keys: x, iteration, step and values."""
        rows = []
        for line in self._record.rows("explore"):
            values = {key: line.get(f"explore/{key}") for key in keys}
            if any(value is not None for value in values.values()):
                rows.append({**self.place(line["iteration"], line["step"]), **values})
        return rows

    def explore_keys(self) -> list[str]:
        """Return every key that an RL step has, without the phase, in the order of the log."""
        rows = self._record.rows("explore")
        found = dict.fromkeys(key for row in rows for key in row if key.startswith("explore/"))
        return [key.removeprefix("explore/") for key in found]

    def value_rows(self, key: str) -> list[Row]:
        """Return a point per RL step that has the key: x, iteration, step and value."""
        rows = [
            self.place(line["iteration"], line["step"]) | {"value": line.get(f"explore/{key}")}
            for line in self._record.rows("explore")
        ]
        return [row for row in rows if row["value"] is not None]

    def place(self, iteration: int, step: int) -> Row:
        """Return where an RL step of an iteration stands: x, iteration, step."""
        start = next((span.start for span in self.spans if span.iteration == iteration), self.end)
        return {"x": start + step, "iteration": iteration, "step": step}

    def evaluation_rows(self, task: str, metrics: Sequence[str]) -> list[Row]:
        """Return a point per measurement of a task: x, policy, metric, value, low, high and `line`.

        `line` names the stroke it belongs to: `kept` for the policies that the loop goes on with,
        or the exploration (`RL 1`), which begins at the policy that its iteration started from;
        that first point has `is_start`.
        """
        return self._strokes(
            lambda line: (
                (metric, estimate)
                for found, metric, estimate in task_metrics(line)
                if found == task and metric in metrics
            )
        )

    def drift_rows(self) -> list[Row]:
        """Return the same for the divergence from the base; no rows where none was logged."""

        def drift(line: Row) -> Iterable[tuple[str, Estimate]]:
            found = optional_estimate(line, DRIFT_KEY)
            return [] if found is None else [("KL from the loop's start", found)]

        return self._strokes(drift)

    def _strokes(self, measures: Callable[[Row], Iterable[tuple[str, Estimate]]]) -> list[Row]:
        kept, explored = self._measurements(measures)
        rows = [{**point, "line": "kept"} for point in kept]
        for span in self.spans:
            members = [p for p in explored if p["iteration"] == span.iteration]
            if members:
                start = [
                    p for p in kept if p["x"] <= span.start and p["iteration"] < span.iteration
                ]
                last = {p["metric"]: p for p in start}.values()
                origin = [{**p, "x": span.start, "is_start": True} for p in last]
                rows += [{**p, "line": f"RL {span.iteration}"} for p in (*origin, *members)]
        return rows

    def _measurements(
        self, measures: Callable[[Row], Iterable[tuple[str, Estimate]]]
    ) -> tuple[list[Row], list[Row]]:
        """Return the points of the policies kept and of the explored ones, in time."""
        kept, explored = [], []
        lines = self._record.rows("evaluate")
        skipped = {"base"} - {reference_policy(self._record)}
        last = {str(line.get("policy")): line for line in lines}
        for line in lines:
            policy = str(line.get("policy"))
            is_explored = policy.startswith("explored-")
            if policy in skipped:
                continue
            for metric, estimate in measures(line):
                point = {
                    "x": self._position(line),
                    "iteration": line["iteration"],
                    "policy": policy,
                    "metric": metric,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "is_start": False,
                    "is_explored": is_explored,
                }
                if is_explored:
                    explored.append(point)
                if not is_explored or (self._record.is_plain_rl and line is last[policy]):
                    kept.append(point)
        return kept, explored

    def _position(self, line: Row) -> int:
        """Return where a line stands: a policy of iteration i at the end of its exploration."""
        iteration = int(line["iteration"])
        span = next((span for span in self.spans if span.iteration == iteration), None)
        if span is None:
            return self.end if iteration else 0
        is_inside = str(line.get("policy")).startswith("explored-")
        return span.start + int(line["step"]) if is_inside else span.end
