"""A trainer that waits after each step for what rloop wants of it.

The public callbacks of transformers' Trainer, no more: `on_train_begin` (a checkpoint is loaded by
then), `on_log` (a step is done, its numbers are there) and `on_save`.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rloop.engines.trl.crew import Crew
from rloop.engines.trl.messages import (
    Done,
    Live,
    Message,
    Next,
    Ready,
    Sample,
    SavePolicy,
    SaveState,
    Score,
    Updated,
)
from rloop.errors import EngineError, NonFinitePolicy

NAMES = {
    "loss": "loss_mean",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy_mean",
    "kl": "kl_mean",
    "clip_ratio/region_mean": "clip_frac",
    "cispo_clip_ratio": "clip_frac",
    "sampling/sampling_logp_difference/mean": "gap_mean",
    "sampling/sampling_logp_difference/max": "gap_max",
}
"""TRL's name of a number -> rloop's."""

Answer = Callable[[Live, int], Message]
"""What the policy in training answers, after so many updates."""


class PhaseLeft(Exception):
    """Rloop asked for something else: the phase ends where it stands."""


class Pauses(TrainerCallback):
    """One phase's pauses, in every worker."""

    def __init__(
        self, crew: Crew, answer: Answer, *, updates_per_step: int, num_steps: int
    ) -> None:
        """Pause after every `updates_per_step` updates."""
        self._crew = crew
        self._answer = answer
        self._updates_per_step = updates_per_step
        self._num_steps = num_steps
        self._logs: list[Mapping[str, float]] = []
        self._metrics: dict[str, float] = {}
        """Of the last step."""
        self._saving: Path | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Say that the phase is ready, and wait."""
        step = state.global_step // self._updates_per_step
        self._crew.send(Ready(step=step, num_steps=self._num_steps))
        self._wait(args, state, control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: object,
    ) -> None:
        """Collect an update's numbers; at the end of a step hand them over, and wait."""
        self._logs.append(logs or {})
        step, rest = divmod(state.global_step, self._updates_per_step)
        if rest:
            return
        self._metrics, self._logs = step_metrics(self._logs), []
        self._crew.send(Updated(step=step, metrics=self._metrics))
        self._wait(args, state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Put the checkpoint where it was wanted, and wait on."""
        assert self._saving is not None, "a checkpoint is written only when rloop asks for it"
        self._crew.wait()
        if self._crew.rank == 0:
            partial = Path(str(args.output_dir))
            shutil.rmtree(self._saving, ignore_errors=True)
            (partial / f"checkpoint-{state.global_step}").rename(self._saving)
            shutil.rmtree(partial, ignore_errors=True)
        self._crew.wait()
        self._crew.send(Done())
        self._wait(args, state, control)

    def _wait(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Answer what is asked between two steps; return to go on, or to write a checkpoint."""
        while True:
            command = self._crew.receive()
            if isinstance(command, Next):
                return _check_finite(state.global_step, self._metrics)
            if isinstance(command, SaveState):
                self._saving = command.directory
                args.output_dir = str(partial_of(command.directory))
                control.should_save = True
                return None
            if isinstance(command, SavePolicy) or (
                isinstance(command, Sample | Score) and command.policy == "live"
            ):
                self._crew.send(self._answer(command, state.global_step))
            else:
                self._crew.put_back(command)
                raise PhaseLeft


def partial_of(directory: Path) -> Path:
    """Return where a checkpoint is written before it is put in its place."""
    return directory.with_name(f".{directory.name}.partial")


def step_metrics(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the means of a step's updates under rloop's names; maxima where the name says so."""
    found: dict[str, float] = {}
    for theirs, ours in NAMES.items():
        values = [float(update[theirs]) for update in updates if update.get(theirs) is not None]
        if values:
            found[ours] = max(values) if ours.endswith("_max") else sum(values) / len(values)
    return found


def _check_finite(num_updates: int, metrics: Mapping[str, float]) -> None:
    """Raise NonFinitePolicy after an update that was none: TRL does it all the same."""
    broken = [name for name in ("loss_mean", "grad_norm") if not isfinite(metrics.get(name, 0.0))]
    if broken:
        raise NonFinitePolicy(
            f"Update {num_updates} had {broken[0]}={metrics[broken[0]]}, and TRL made it: the "
            "policy's weights are not numbers any more. Lower the learning rate."
        )


def require_checkpoint(directory: Path) -> None:
    """Raise EngineError unless a saved state is a whole checkpoint of TRL."""
    if not (directory / "trainer_state.json").is_file():
        raise EngineError(
            f"The saved state {directory} is missing or damaged (no trainer_state.json). Restore "
            "it from a backup, then `rloop resume` again, or begin a new run."
        )
