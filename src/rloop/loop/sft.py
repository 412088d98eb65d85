"""Supervised fine-tuning on stored token ids, for a cold start and for RFT: epochs of updates, with
alarms and saved points.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rloop.algo.objective import Objective
from rloop.algo.schedule import learning_rate, split_evenly
from rloop.engines.base import Engine, TrainingSequence
from rloop.loop.alarms import Alarms
from rloop.loop.context import Context, policy_result
from rloop.loop.interrupt import Interrupted
from rloop.loop.stopping import FinetuneStopRules
from rloop.observe.run_log import read_metrics
from rloop.recipe.config import ColdstartConfig, FinetuneConfig
from rloop.types import Example, Place, PolicyRef, stable_hash

NUM_LINES = 10
"""Most lines of one fine-tuning on the console."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTStep:
    """One supervised update. Example: SFTStep(step=3, num_steps=40, metrics={"loss_mean":
    0.7}).
    """

    step: int
    num_steps: int
    metrics: Mapping[str, float]
    batch: Sequence[TrainingSequence] = ()
    """The batch it trained on."""


def sft_steps(
    engine: Engine,
    examples: Sequence[Example],
    config: FinetuneConfig | ColdstartConfig,
    place: Place,
    *,
    num_done: int = 0,
) -> Iterator[SFTStep]:
    """Do and yield the updates of all epochs over the examples, after the first `num_done`.

    The order of an epoch depends on the place's seed alone. An epoch is cut into as few updates as
    `batch_size` allows, of nearly equal size.
    """
    sequences = [
        TrainingSequence(
            prompt_ids=example.prompt_ids,
            completion_ids=example.completion_ids,
            weight=example.weight,
        )
        for example in examples
    ]
    per_epoch = -(-len(sequences) // config.batch_size)
    num_steps = config.epochs * per_epoch
    for step in range(num_done, num_steps):
        epoch, number = divmod(step, per_epoch)
        seed = stable_hash(place.seed, place.iteration, place.phase, "order", epoch)
        order = np.random.default_rng(seed).permutation(len(sequences)).tolist()
        batch = [sequences[index] for index in split_evenly(order, per_epoch)[number]]
        rate = learning_rate(config.optimizer, step, num_steps)
        metrics = engine.update(batch, Objective(loss="sft"), learning_rate=rate)
        yield SFTStep(step=step + 1, num_steps=num_steps, metrics=metrics, batch=batch)


class Finetuning:
    """SFT of one start policy; its product is the policy named in its place."""

    def __init__(
        self,
        context: Context,
        start: PolicyRef,
        examples: Callable[[], Sequence[Example]],
        place: Place,
    ) -> None:
        """Fine-tune `start` on the examples, which are read when the phase runs."""
        recipe = context.recipe
        config = recipe.coldstart if place.phase == "coldstart" else recipe.finetune
        assert config is not None, "a phase runs only when the recipe has it"
        self._context = context
        self._config = config
        self._start = start
        self._examples = examples
        self._place = place
        self._key = f"{place.iteration}/{place.phase}"
        self._stop_rules = FinetuneStopRules(config.optimizer.learning_rate, place)
        self._alarms = Alarms(context.recipe, context.log, context.console)
        self._step = 0

    def run(self) -> PolicyRef:
        """Train to the end, from the saved point if there is one."""
        context, engine = self._context, self._context.engine
        point = context.begin(self._key)
        self._step = int(point["step"])
        self._stop_rules.streaks = dict(point["streaks"])
        self._alarms.recall(read_metrics(context.run_dir), self._place)
        try:
            with context.log.span(self._place.phase, self._place):
                engine.load(self._start)
                examples = self._examples()
                context.begin_training(self._config.optimizer, self._place, point)
                self._train(examples)
        except Interrupted:
            self._save_point()
            raise
        name = self._place.policy
        policy = engine.save_policy(context.policy_dir(name), name)
        context.end(self._key, policy_result(policy, context.run_dir))
        return policy

    def _train(self, examples: Sequence[Example]) -> None:
        """Do the remaining updates."""
        context, place, config = self._context, self._place, self._config
        per_epoch = -(-len(examples) // config.batch_size)
        total = config.epochs * per_epoch
        if self._step == total:
            return
        with context.console.phase(place.iteration, place.phase, total, "update") as bar:
            for update in sft_steps(context.engine, examples, config, place, num_done=self._step):
                bar.advance(update.step)
                self._record(update)
                if update.step % config.checkpoint_every == 0 and update.step < total:
                    self._save_point()
                context.progress(replace(place, step=update.step))

    def _record(self, update: SFTStep) -> None:
        context, here = self._context, replace(self._place, step=update.step)
        context.log.metrics(here, update.metrics)
        if update.step % max(1, update.num_steps // NUM_LINES) == 0:
            context.console.step(here, update.metrics)
        is_skipped = bool(update.metrics.get("skipped_updates_count"))
        skipped = context.keep_skipped(here, update.batch) if is_skipped else None
        self._alarms.step(here, update.metrics, skipped=skipped)
        self._stop_rules.check(update.metrics, is_last=update.step == update.num_steps)
        self._step = update.step

    def _save_point(self) -> None:
        self._context.save_point(
            self._key, self._place.policy, self._step, streaks=self._stop_rules.streaks
        )
