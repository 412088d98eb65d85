"""Fine-tuning by TRL's SFTTrainer on stored token ids, never on text again."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from rloop.engines.trl.messages import Tune
from rloop.types import Example


def build_tuner(options: dict[str, Any], command: Tune, **extra: Any) -> Any:  # noqa: ANN401
    """Return an SFTTrainer that trains on the completions of the examples, in their order."""
    return SFTTrainer(
        model=str(command.start.path),
        args=SFTConfig(**options),
        train_dataset=tuning_data(command.examples),
        **extra,
    )


def tuning_data(examples: Sequence[Example]) -> Dataset:
    """Return the columns `input_ids` and `completion_mask`: 1 where a token trains, EOS too."""
    return Dataset.from_dict(
        {
            "input_ids": [[*e.prompt_ids, *e.completion_ids] for e in examples],
            "completion_mask": [
                [0] * len(e.prompt_ids) + [1] * len(e.completion_ids) for e in examples
            ],
        }
    )
