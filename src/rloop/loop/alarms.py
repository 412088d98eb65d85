"""Alarms: numbers that suggest that learning goes wrong, on the console and in events.jsonl.

An alarm never stops a run. It sounds when its condition first holds, and again only after
`QUIET_STEPS` steps without it. Alarms compare a step with the steps before it. So that a resumed
phase sounds the same alarms, `recall` reads those steps from metrics.jsonl.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rloop.observe.console import Console
from rloop.observe.run_log import RunLog
from rloop.recipe.config import Recipe
from rloop.types import Place

QUIET_STEPS = 10
FIRST_STEPS = 3
"""Later steps are compared with the mean of this many first steps (or of those so far)."""
ENTROPY_COLLAPSE = 0.1
"""Fraction of the first steps' entropy. In arXiv 2505.22617 73 % is gone after 200 steps, with most
of the gain; at a tenth, R = b - a exp(H) has little left to give."""
ENTROPY_EXPLOSION = 3.0
"""Times the first steps' entropy: healthy runs here end below 1.1 times."""
TRUNCATED = 0.5
"""Fraction of completions cut at the token limit, which cannot be successes."""
LENGTH_COLLAPSE = 0.25
"""Fraction of the first steps' length, if the reward is no higher than theirs: a short answer that
is right is no alarm (0.44 in the demo)."""
GRADIENT_SPIKE = 10.0
"""Times the median of the last `NORMS` norms: the demo's runs stay below 6 times."""
NORMS = 20
FEWEST_NORMS = 3
GAP = 0.1
"""Nats between learner and sampler, mean over tokens: bfloat16 alone gives 0.02 to 0.04."""
CLIPPED = 0.5
"""Fraction of tokens whose gradient or weight the clip cut: half of the batch is thrown away."""
SILENT_STEPS = 3
"""Steps in a row without a signal in any group; explore.max_dead_steps ends the phase."""
ERRORS = 0.5
"""Fraction of tasks.max_error_frac, at which the run stops."""
DIVERGENCE = 1.0
"""Nats per token from the base: on average its own tokens have become e times less likely. RLoop's
policies in the demo reach 0.53, an overfitted plain RL 1.4, a collapsed policy 60."""

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A condition that holds.

    Example: Alarm(what="entropy_collapse", value=0.05, threshold=0.1, text="entropy is 0.05 ...")
    """

    what: str
    value: float
    threshold: float
    text: str


class Alarms:
    """The alarms of one learning phase, or of one policy's evaluation."""

    def __init__(self, recipe: Recipe, log: RunLog, console: Console) -> None:
        """Begin with nothing seen."""
        self._recipe = recipe
        self._log = log
        self._console = console
        self._first: dict[str, list[float]] = {}
        self._norms: deque[float] = deque(maxlen=NORMS)
        self._num_silent = 0
        self._last_held: dict[str, int] = {}

    def step(self, place: Place, metrics: Metrics, *, skipped: Path | None = None) -> None:
        """Check a step's metrics (keys without the phase) and sound new alarms.

        `skipped` is the file with the batch of an update that was skipped because it was not
        finite.
        """
        for alarm in self._due(place.step, self._held(place.phase, metrics)):
            kept = ""
            if skipped is not None and alarm.what == "nonfinite":
                kept = f"; the batch is in {skipped.parent.name}/{skipped.name}"
            self._sound(place, alarm, f"{alarm.text}{kept}")

    def evaluation(self, place: Place, metrics: Metrics) -> None:
        """Check an evaluation's metrics and sound new alarms."""
        for alarm in self._due(place.step, _evaluation_alarms(metrics)):
            self._sound(place, alarm, alarm.text)

    def recall(self, lines: Iterable[Mapping[str, Any]], place: Place) -> None:
        """Silently read the lines of metrics.jsonl that the place's phase has written so far."""
        for line in lines:
            if (line["iteration"], line["policy"]) != (place.iteration, place.policy):
                continue
            phase = str(line["phase"])
            prefix = f"{phase}/"
            found = {
                key.removeprefix(prefix): value
                for key, value in line.items()
                if key.startswith(prefix) and value is not None
            }
            is_step = phase == place.phase
            held = self._held(place.phase, found) if is_step else _evaluation_alarms(found)
            for _ in self._due(int(line["step"]), held):
                pass

    def _due(self, step: int, held: Iterable[Alarm]) -> Iterator[Alarm]:
        """Yield the alarms that hold and have been quiet."""
        for alarm in held:
            before = self._last_held.get(alarm.what)
            self._last_held[alarm.what] = step
            if before is None or step - before > QUIET_STEPS:
                yield alarm

    def _sound(self, place: Place, alarm: Alarm, text: str) -> None:
        is_kept = place.phase == "evaluate" and not place.step
        where = f"{place.policy}: " if is_kept else f"step {place.step}: "
        self._console.warn(f"{where}{text}.")
        self._log.event(
            "alarm",
            place,
            time.time(),
            0.0,
            what=alarm.what,
            value=alarm.value,
            threshold=alarm.threshold,
            text=text,
        )

    def _held(self, phase: str, metrics: Metrics) -> list[Alarm]:
        """Return the alarms that hold at a step, then remember its numbers."""
        if "correct_frac" in metrics:  # the mean reward is then not the fraction that is right
            metrics = {**metrics, "reward_mean": metrics["correct_frac"]}
        held = [*_skip_alarms(metrics)]
        if phase == "explore":
            held += [
                *self._gradient_alarms(metrics),
                *self._entropy_alarms(metrics),
                *self._length_alarms(metrics),
                *self._signal_alarms(metrics),
                *_ratio_alarms(metrics),
                *_verdict_alarms(metrics, self._recipe.tasks.max_error_frac),
            ]
        for key in ("entropy_mean", "completion_tokens_mean", "reward_mean"):
            values = self._first.setdefault(key, [])
            if key in metrics and isfinite(metrics[key]) and len(values) < FIRST_STEPS:
                values.append(metrics[key])
        norm = metrics.get("grad_norm")
        if norm is not None and isfinite(norm):
            self._norms.append(norm)
        return held

    def _start(self, key: str) -> float | None:
        """Return the mean of the first steps, None before the first."""
        values = self._first.get(key)
        return fmean(values) if values else None

    def _entropy_alarms(self, metrics: Metrics) -> Iterator[Alarm]:
        value, start = metrics.get("entropy_mean"), self._start("entropy_mean")
        if value is None or start is None:
            return
        low, high = ENTROPY_COLLAPSE * start, ENTROPY_EXPLOSION * start
        if value < low:
            text = f"entropy is {value:.3g} nats a token, under a tenth of the first steps' "
            text += f"{start:.3g}: the policy hardly explores any more"
            yield Alarm(what="entropy_collapse", value=value, threshold=low, text=text)
        if value > high:
            text = f"entropy is {value:.3g} nats a token, over three times the first steps' "
            text += f"{start:.3g}: the policy is becoming random"
            yield Alarm(what="entropy_explosion", value=value, threshold=high, text=text)

    def _length_alarms(self, metrics: Metrics) -> Iterator[Alarm]:
        cut = metrics.get("truncated_frac", 0.0)
        if cut > TRUNCATED:
            limit = self._recipe.explore.sampling.max_completion_tokens
            text = f"{cut:.0%} of the completions hit the limit of {limit} tokens; they can earn "
            text += "reward, but fine-tuning will not use them"
            yield Alarm(what="length_limit", value=cut, threshold=TRUNCATED, text=text)
        length, start = (
            metrics.get("completion_tokens_mean"),
            self._start("completion_tokens_mean"),
        )
        reward = self._start("reward_mean")
        if length is None or start is None or reward is None:
            return
        low = LENGTH_COLLAPSE * start
        if length < low and metrics.get("reward_mean", 0.0) <= reward:
            text = f"completions have {length:.1f} tokens, under a quarter of the first steps' "
            text += f"{start:.1f}, and are right no more often"
            yield Alarm(what="length_collapse", value=length, threshold=low, text=text)

    def _gradient_alarms(self, metrics: Metrics) -> Iterator[Alarm]:
        norm = metrics.get("grad_norm")
        if norm is None or not isfinite(norm) or len(self._norms) < FEWEST_NORMS:
            return
        usual = median(self._norms)
        if norm > GRADIENT_SPIKE * usual > 0:
            text = f"the gradient norm is {norm:.3g}, over ten times the usual {usual:.3g}"
            limit = GRADIENT_SPIKE * usual
            yield Alarm(what="gradient_spike", value=norm, threshold=limit, text=text)

    def _signal_alarms(self, metrics: Metrics) -> Iterator[Alarm]:
        is_silent = metrics.get("groups_signal_frac", 1.0) == 0.0
        self._num_silent = self._num_silent + 1 if is_silent else 0
        if self._num_silent >= SILENT_STEPS and self._recipe.explore.optimizer.learning_rate > 0:
            text = f"no group had a signal for {self._num_silent} steps in a row: the policy is "
            text += "not learning"
            yield Alarm(what="no_signal", value=self._num_silent, threshold=SILENT_STEPS, text=text)


def _skip_alarms(metrics: Metrics) -> Iterator[Alarm]:
    count = metrics.get("skipped_updates_count", 0.0)
    if count:
        text = "the loss or its gradient was not finite, so the update was skipped"
        yield Alarm(what="nonfinite", value=count, threshold=0.0, text=text)


def _ratio_alarms(metrics: Metrics) -> Iterator[Alarm]:
    gap, clipped = metrics.get("gap_mean", 0.0), metrics.get("clip_frac", 0.0)
    if GAP < gap < float("inf"):
        text = f"learner and sampler disagree by {gap:.2f} nats a token on average, so the ratios "
        text += "of the policy loss are noise"
        yield Alarm(what="logprob_gap", value=gap, threshold=GAP, text=text)
    if clipped > CLIPPED:
        text = f"the clip cuts off {clipped:.0%} of the tokens: the updates of a step are too large"
        yield Alarm(what="clipping", value=clipped, threshold=CLIPPED, text=text)


def _verdict_alarms(metrics: Metrics, max_error_frac: float) -> Iterator[Alarm]:
    errors, limit = metrics.get("verdict_error_frac", 0.0), ERRORS * max_error_frac
    if errors > limit:
        text = f"{errors:.1%} of the verdicts were errors; above tasks.max_error_frac="
        text += f"{max_error_frac:g} the run stops"
        yield Alarm(what="verdict_errors", value=errors, threshold=limit, text=text)


def _evaluation_alarms(metrics: Metrics) -> Iterator[Alarm]:
    moved = metrics.get("kl_base_mean", 0.0)
    if DIVERGENCE < moved < float("inf"):
        far = "the policy is far from where it began"
        text = f"KL from the loop's start is {moved:.2f} nats a token: {far}"
        yield Alarm(what="divergence", value=moved, threshold=DIVERGENCE, text=text)
