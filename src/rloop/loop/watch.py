"""Watching an exploration: when it must stop because nothing can be learned, and when it may stop
early.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rloop.config import Recipe
from rloop.errors import DegenerateRun
from rloop.types import Group


class Watch:
    """Counts steps in a row in which a rule holds; one watch per exploration."""

    def __init__(self, recipe: Recipe) -> None:
        """Start with no streaks; those of a saved point may be set."""
        self._explore = recipe.explore
        self._max_error_frac = recipe.tasks.max_error_frac
        self.streaks: dict[str, int] = {}

    def check(self, groups: Sequence[Group], metrics: Mapping[str, float]) -> None:
        """Raise DegenerateRun when verdicts fail or nothing has had a signal for too long."""
        trajectories = [t for group in groups for t in group.trajectories]
        errors = [t.verdict for t in trajectories if t.verdict.kind == "error"]
        if len(errors) > self._max_error_frac * len(trajectories):
            raise DegenerateRun(
                f"{len(errors)} of {len(trajectories)} verdicts were errors, more than "
                f"tasks.max_error_frac={self._max_error_frac} allows; the last one says: "
                f"{errors[-1].reason}. Mend the verifier or raise the limit."
            )
        limit = self._explore.max_dead_steps
        if self._count("truncated", all(t.completion.is_truncated for t in trajectories)) >= limit:
            raise DegenerateRun(
                f"All {len(trajectories)} completions of the step were cut at "
                f"{self._explore.sampling.max_completion_tokens} tokens, as in {limit} steps in a "
                "row. Raise explore.sampling.max_completion_tokens, or teach the policy to stop "
                "(coldstart)."
            )
        learns = self._explore.optimizer.learning_rate > 0
        is_dead = learns and not metrics.get("groups_signal_frac", 0.0)
        if self._count("dead", is_dead) >= limit:
            num_right = sum(g.num_correct == len(g.trajectories) for g in groups)
            num_wrong = sum(g.num_correct == 0 for g in groups)
            raise DegenerateRun(
                f"No group had a signal for {limit} steps in a row: of the last {len(groups)} "
                f"groups {num_right} were all correct and {num_wrong} all wrong. Choose "
                f"{'harder' if num_right > num_wrong else 'easier'} problems or a larger "
                "explore.group_size."
            )

    def early_stop(self, metrics: Mapping[str, float]) -> str | None:
        """Return why exploration should end now by `explore.early_stop`, None to go on."""
        rules = self._explore.early_stop
        entropy, norm = metrics.get("entropy_mean"), metrics.get("grad_norm")
        for name, limit, holds in (
            ("min_entropy", rules.min_entropy, _below(entropy, rules.min_entropy)),
            ("max_entropy", rules.max_entropy, _below(rules.max_entropy, entropy)),
            ("max_grad_norm", rules.max_grad_norm, _below(rules.max_grad_norm, norm)),
        ):
            if self._count(name, holds) >= rules.patience_steps:
                return (
                    f"explore.early_stop.{name}={limit} held {rules.patience_steps} steps in a row"
                )
        return None

    def early_stop_on_evaluation(self, previous: float | None, current: float) -> str | None:
        """Return why exploration should end after a held-out pass@k, None to go on."""
        wanted = self._explore.early_stop.pass_at_k_falls
        falls = self._count("falls", previous is not None and current < previous)
        if wanted is not None and falls >= wanted:
            return f"held-out pass@k fell {falls} evaluations in a row, now {current:.3f}"
        return None

    def _count(self, name: str, holds: bool) -> int:  # noqa: FBT001 (a streak is of a truth value)
        self.streaks[name] = self.streaks.get(name, 0) + 1 if holds else 0
        return self.streaks[name]


def check_verdicts(metrics: Mapping[str, float], max_error_frac: float, run_dir: Path) -> None:
    """Raise DegenerateRun when too many verdicts of an evaluation were errors.

    `metrics` are the evaluation's (`TASK/verdict_error_frac`), `run_dir` is where to look.
    """
    for key, value in metrics.items():
        task, _, name = key.rpartition("/")
        if name == "verdict_error_frac" and value > max_error_frac:
            raise DegenerateRun(
                f"{value:.0%} of the verdicts on {task} were errors, more than "
                f"tasks.max_error_frac={max_error_frac} allows. See `rloop store show {run_dir} "
                "--phase evaluate --verdict error`, then mend the verifier or raise the limit."
            )


def _below(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low < high
