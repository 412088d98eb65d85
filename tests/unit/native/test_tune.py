"""Supervised fine-tuning: how epochs become updates."""

from doubles_models import tiny_model

from rloop.config import OptimizerConfig
from rloop.config_engine import EngineConfig
from rloop.engines.native.learner import Learner
from rloop.engines.native.tune import tune
from rloop.types import Example, Place

PLACE = Place(run="test", seed=0, iteration=1, phase="finetune", policy="iter-001")
EXAMPLES = [
    Example(problem_id=f"toy/{n}", prompt_ids=(5, 6), completion_ids=(7 + n, 2)) for n in range(9)
]


def test_an_epochs_updates_are_of_nearly_equal_size_and_see_every_example():
    """Nine in batches of at most 4: three of 3, not two of 4 and one of 1."""
    learner = Learner(
        tiny_model(), OptimizerConfig(learning_rate=1e-3), EngineConfig(), num_updates=6
    )
    updates = list(tune(learner, EXAMPLES, PLACE, epochs=2, batch_size=4))
    assert [update.metrics["trained_sequences_count"] for update in updates] == [3.0] * 6
    assert [(update.step, update.num_steps) for update in updates] == [(n, 6) for n in range(1, 7)]
