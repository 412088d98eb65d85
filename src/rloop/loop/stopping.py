"""Stop rules: when a run must stop because nothing can be learned, when a phase ends early.

A collapsed exploration still has good trajectories from before the collapse. It ends, its pool is
used for selection, and the loop continues from the policy that the iteration started from. The run
stops only if it needs RL's own weights, or if there never was anything to learn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rloop.errors import DegenerateRun
from rloop.loop.rl import RLStep
from rloop.recipe.config import Recipe
from rloop.types import Group, Place

MAX_SKIPPED = 5
"""A phase ends after this many RL steps, or fine-tuning updates, in a row that were skipped because
they were not finite. A bad batch is over with the next; overflowing weights stay, because a skipped
update does not change them."""

RATE = "explore.optimizer.learning_rate"
LONGER = "Raise explore.sampling.max_completion_tokens, or teach the policy to stop (coldstart)."


def needs_explored_weights(recipe: Recipe) -> bool:
    """Whether the run continues from RL's weights (plain RL, or `finetune.init: explored`)."""
    return recipe.finetune is None or recipe.finetune.init == "explored"


class StopRules:
    """Counts steps in a row in which a rule holds; one object an exploration."""

    def __init__(self, recipe: Recipe) -> None:
        """Start without streaks; those of a saved point can be set."""
        self._explore = recipe.explore
        self._max_error_frac = recipe.tasks.max_error_frac
        self._needs_weights = needs_explored_weights(recipe)
        self.streaks: dict[str, int] = {}

    def check(self, result: RLStep) -> str | None:
        """Return why exploration cannot continue after this step; None if it can.

        Raises DegenerateRun if verdicts fail, or if the run cannot continue without this
        exploration: it never had anything to learn from, or the run needs its weights.
        """
        _check_errors(result.groups, self._max_error_frac)
        limit = self._explore.max_dead_steps
        learns = self._explore.optimizer.learning_rate > 0
        is_dead = learns and not result.metrics.get("groups_signal_frac", 0.0)
        is_cut = all(
            t.completion.is_truncated for group in result.groups for t in group.trajectories
        )
        num_cut, num_dead = self._count("truncated", is_cut), self._count("dead", is_dead)
        for count, reason, remedy in (
            (num_cut, self._all_cut(limit), LONGER),
            (num_dead, _no_signal(limit, result.groups), _other_problems(result.groups)),
        ):
            if count >= limit:
                return self._end(reason, remedy, had_signal=count < result.step)
        is_skipped = bool(result.metrics.get("skipped_updates_count"))
        is_update = is_skipped or "loss_mean" in result.metrics
        if is_update and self._count("skipped", is_skipped) >= MAX_SKIPPED:
            rate = self._explore.optimizer.learning_rate
            return (
                f"the loss or its gradient was not finite in {MAX_SKIPPED} steps in a row; lower "
                f"{RATE}={rate:g}"
            )
        return None

    def _all_cut(self, limit: int) -> str:
        tokens = self._explore.sampling.max_completion_tokens
        return f"all completions were cut at {tokens} tokens in {limit} steps in a row"

    def _end(self, reason: str, remedy: str, *, had_signal: bool) -> str:
        """Return the reason if the loop can continue without this exploration's weights, else
        raise."""
        if had_signal and not self._needs_weights:
            return reason
        if had_signal:
            rate = self._explore.optimizer.learning_rate
            remedy = "The first steps were normal: RL has collapsed the policy. Lower "
            remedy += f"{RATE}={rate:g}, or explore.steps."
        raise DegenerateRun(f"{reason[0].upper()}{reason[1:]}. {remedy}")

    def early_stop(self, metrics: Mapping[str, float]) -> str | None:
        """Return why exploration should end now by `explore.early_stop`; None to continue."""
        rules = self._explore.early_stop
        entropy, norm = metrics.get("entropy_mean"), metrics.get("grad_norm")
        for name, limit, holds in (
            ("min_entropy", rules.min_entropy, _below(entropy, rules.min_entropy)),
            ("max_grad_norm", rules.max_grad_norm, _below(rules.max_grad_norm, norm)),
        ):
            if self._count(name, holds) >= rules.patience_steps:
                return (
                    f"explore.early_stop.{name}={limit} held {rules.patience_steps} steps in a row"
                )
        return None

    def early_stop_on_evaluation(self, previous: float | None, current: float) -> str | None:
        """Return why exploration should end after a held-out pass@k; None to continue."""
        wanted = self._explore.early_stop.pass_at_k_falls
        falls = self._count("falls", previous is not None and current < previous)
        if wanted is not None and falls >= wanted:
            return f"held-out pass@k fell {falls} evaluations in a row, now {current:.3f}"
        return None

    def _count(self, name: str, holds: bool) -> int:  # noqa: FBT001 (a streak is of a truth value)
        self.streaks[name] = self.streaks.get(name, 0) + 1 if holds else 0
        return self.streaks[name]


class FinetuneStopRules:
    """Counts the updates of a fine-tuning that were skipped in a row; one object a phase."""

    def __init__(self, learning_rate: float, place: Place) -> None:
        """Watch the phase that makes `place.policy`; the error names its learning rate."""
        self._rate = learning_rate
        self._place = place
        self.streaks: dict[str, int] = {}
        """Counts so far; those of a saved point can be set."""

    def check(self, metrics: Mapping[str, float], *, is_last: bool) -> None:
        """Raise DegenerateRun after too many skipped updates in a row, or if all were skipped."""
        is_skipped = bool(metrics.get("skipped_updates_count"))
        in_a_row = self.streaks.get("in_a_row", 0) + 1 if is_skipped else 0
        updates = self.streaks.get("updates", 0) + 1
        self.streaks = {"updates": updates, "in_a_row": in_a_row}
        if in_a_row >= MAX_SKIPPED or (is_last and in_a_row == updates):
            raise DegenerateRun(
                f"There is no {self._place.policy}: the loss or its gradient was not finite in "
                f"{in_a_row} updates in a row, so the policy that fine-tuning started from is the "
                f"last one. Lower {self._place.phase}.optimizer.learning_rate={self._rate:g}, or "
                "set engine.dtype=float32."
            )


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
                "--phase evaluate --verdict error`, then fix the verifier or raise the limit."
            )


def _check_errors(groups: Sequence[Group], max_error_frac: float) -> None:
    trajectories = [t for group in groups for t in group.trajectories]
    judged = {"": [t.verdict for t in trajectories]}
    judged |= {name: [t.rewards[name] for t in trajectories] for name in trajectories[0].rewards}
    for name, verdicts in judged.items():
        errors = [verdict for verdict in verdicts if verdict.kind == "error"]
        if len(errors) > max_error_frac * len(verdicts):
            what = f"values of the reward {name}" if name else "verdicts"
            raise DegenerateRun(
                f"{len(errors)} of {len(verdicts)} {what} were errors, more than "
                f"tasks.max_error_frac={max_error_frac} allows; the last one says: "
                f"{errors[-1].reason}. Fix the {'reward' if name else 'verifier'} or raise the "
                "limit."
            )


def _no_signal(limit: int, groups: Sequence[Group]) -> str:
    num_right, num_wrong = _alike(groups)
    return (
        f"no group had a signal for {limit} steps in a row: of the last {len(groups)} groups "
        f"{num_right} were all correct and {num_wrong} all wrong"
    )


def _other_problems(groups: Sequence[Group]) -> str:
    num_right, num_wrong = _alike(groups)
    kind = "harder" if num_right > num_wrong else "easier"
    return f"Choose {kind} problems or a larger explore.group_size."


def _alike(groups: Sequence[Group]) -> tuple[int, int]:
    """Return how many groups were all correct, and all wrong."""
    num_right = sum(group.num_correct == len(group.trajectories) for group in groups)
    return num_right, sum(group.num_correct == 0 for group in groups)


def _below(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low < high
