"""What TRL's two contenders share: settings that keep a trainer to its work, and a clock."""

import sys
from typing import Any

from contenders.clock import Clock
from transformers import TrainerCallback


def settings(work: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return TRL's arguments for the work's precision; no recomputation, no logging, no files.

    Weights, gradients and moments are in that precision too, as TRL loads them, or in the one
    named after the work file.
    """
    weights = sys.argv[2] if len(sys.argv) > 2 else work["dtype"]
    return {
        "output_dir": folder,
        "use_cpu": work["device"] == "cpu",
        "model_init_kwargs": {"dtype": weights, "attn_implementation": "sdpa"},
        "bf16": work["dtype"] == "bfloat16",
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


class StepClock(TrainerCallback, Clock):
    """Marks where the training begins and each step ends."""

    def on_train_begin(self, *_: object, **__: object) -> None:
        """Set the first mark."""
        self.mark()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Set a mark."""
        self.mark()
