"""What TRL's two contenders share: settings that keep a trainer to its work, and a clock."""

import sys
import time
from typing import Any

from transformers import TrainerCallback


def settings(work: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return TRL's arguments for the work's precision; no recomputation, no logging, no files.

    Weights, gradients and moments are in that precision too, as TRL loads them, or in the one
    named after the work file.
    """
    weights = sys.argv[2] if len(sys.argv) > 2 else work["dtype"]
    return {
        "output_dir": folder,
        "use_cpu": True,
        "model_init_kwargs": {"dtype": weights, "attn_implementation": "sdpa"},
        "bf16": work["dtype"] == "bfloat16",
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


class Clock(TrainerCallback):
    """Notes when the training began and each step ended."""

    def __init__(self) -> None:
        """Nothing has begun."""
        self.times: list[float] = []

    def on_train_begin(self, *_: object, **__: object) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())

    def on_step_end(self, *_: object, **__: object) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())
