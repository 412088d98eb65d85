"""The supervised phases, a cold start and fine-tuning: pull updates, watch, save points."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from rloop.engines.base import FinetuneStep
from rloop.loop.alarms import Alarms
from rloop.loop.context import Context, policy_result
from rloop.loop.interrupt import Interrupted
from rloop.loop.watch import TuneWatch
from rloop.observe.run_log import read_metrics
from rloop.types import Example, Place, PolicyRef

NUM_LINES = 10


class Tuning:
    """SFT of one start policy; its product is the policy that the place names."""

    def __init__(
        self,
        context: Context,
        start: PolicyRef,
        examples: Callable[[], Sequence[Example]],
        place: Place,
    ) -> None:
        """Fine-tune `start` on the examples, which are read when the phase runs."""
        config = context.recipe.tuning(place.phase)
        assert config is not None, "a phase runs only when the recipe has it"
        self._context = context
        self._start = start
        self._examples = examples
        self._place = place
        self._key = f"{place.iteration}/{place.phase}"
        self._checkpoint_every = config.checkpoint_every
        self._watch = TuneWatch(config.optimizer.learning_rate, place)
        self._alarms = Alarms(context.recipe, context.log, context.console)
        self._step = 0

    def run(self) -> PolicyRef:
        """Train to the end; resume from a saved point where there is one."""
        context = self._context
        point = context.begin(self._key)
        self._restore(point)
        examples = self._examples()
        try:
            with context.log.span(self._place.phase, self._place):
                updates = context.engine.fine_tune(
                    self._start,
                    examples,
                    self._place,
                    resume_from=context.run_dir / point["state"] if point["state"] else None,
                )
                self._pull(updates)
        except Interrupted:
            self._save_point()
            raise
        self._watch.check_learned()
        name = self._place.policy
        policy = context.engine.save_policy(context.policy_dir(name), name)
        context.end(self._key, policy_result(policy, context.run_dir))
        context.drop_states()
        return policy

    def _restore(self, point: Mapping[str, Any]) -> None:
        self._step = int(point["step"])
        self._watch.streaks = dict(point["streaks"])
        self._alarms.recall(read_metrics(self._context.run_dir), self._place)

    def _pull(self, updates: Iterator[FinetuneStep]) -> None:
        """Take the updates that are left; the first one says how many there are."""
        context, place, bar = self._context, self._place, None
        with ExitStack() as stack:
            for update in updates:
                if bar is None:
                    bar = stack.enter_context(
                        context.console.phase(
                            place.iteration, place.phase, update.num_steps, "update"
                        )
                    )
                bar.advance(update.step)
                self._record(update)
                if update.step % self._checkpoint_every == 0 and update.step < update.num_steps:
                    self._save_point()
                context.progress(replace(place, step=update.step))

    def _record(self, update: FinetuneStep) -> None:
        context, here = self._context, replace(self._place, step=update.step)
        context.log.metrics(here, update.metrics)
        if update.step % max(1, update.num_steps // NUM_LINES) == 0:
            context.console.step(here, update.metrics)
        skipped = context.keep_skipped(here, update.metrics)
        self._alarms.step(here, update.metrics, skipped=skipped)
        self._watch.check(update.metrics)
        self._step = update.step

    def _save_point(self) -> None:
        self._context.save_point(
            self._key, self._place.policy, self._step, streaks=self._watch.streaks
        )
