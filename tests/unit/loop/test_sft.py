"""Supervised fine-tuning: how epochs become updates."""

from pathlib import Path

from doubles_runs import half_right, toy_recipe
from doubles_scripted import ScriptedEngine

from rloop.loop.sft import SFTStep, sft_steps
from rloop.recipe.config import FinetuneConfig, OptimizerConfig
from rloop.types import Example, Place

PLACE = Place(run="test", seed=0, iteration=1, phase="finetune", policy="iter-001")
EXAMPLES = [
    Example(problem_id=f"toy/{n}", prompt_ids=(5, 6), completion_ids=(7 + n, 2)) for n in range(9)
]


def tuned(folder: Path, *, num_done: int = 0) -> list[SFTStep]:
    """Do the updates after the first `num_done` of two epochs in batches of at most 4."""
    rate = OptimizerConfig(learning_rate=1e-3)
    config = FinetuneConfig(epochs=2, batch_size=4, optimizer=rate)
    engine = ScriptedEngine(toy_recipe(folder), half_right)
    engine.prepare("", folder / "base", seed=0)
    engine.begin(rate, seed=0)
    return list(sft_steps(engine, EXAMPLES, config, PLACE, num_done=num_done))


def ids(updates: list[SFTStep]) -> list[int]:
    return [sequence.completion_ids[0] for update in updates for sequence in update.batch]


def test_an_epochs_updates_are_of_nearly_equal_size_and_see_every_example(tmp_path: Path):
    """Nine in batches of at most 4: three of 3, not two of 4 and one of 1."""
    updates = tuned(tmp_path)
    assert [update.metrics["trained_sequences_count"] for update in updates] == [3.0] * 6
    assert [(update.step, update.num_steps) for update in updates] == [(n, 6) for n in range(1, 7)]
    first, second = ids(updates[:3]), ids(updates[3:])
    assert sorted(first) == sorted(second) == list(range(7, 16))
    assert first != second


def test_updates_that_are_left_are_those_of_the_whole(tmp_path: Path):
    assert ids(tuned(tmp_path, num_done=4)) == ids(tuned(tmp_path))[12:]
