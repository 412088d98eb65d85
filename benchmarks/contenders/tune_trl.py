"""S3 with TRL's SFTTrainer: completions packed into rows of 1024 tokens.

Packing is done before the clock starts. Rows of one pass are joined into one longer sequence, whose
masked attention costs more on a CPU: there it is one row a pass.
"""

import tempfile
from typing import Any

from contenders.measure import read_work, report, stored_completions
from contenders.trainer import StepClock, settings
from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

ROW_TOKENS = 1024
ROWS = {"cpu": 1, "cuda": 4}
"""Rows of one forward and backward pass."""
IGNORED = -100


def main() -> None:
    """Learn and report."""
    work = read_work()
    pairs = stored_completions(work)
    columns = {
        "input_ids": [prompt + completion for prompt, completion in pairs],
        "completion_mask": [[0] * len(p) + [1] * len(c) for p, c in pairs],
    }
    mean_tokens = sum(map(len, columns["input_ids"])) / len(pairs)
    pass_tokens = ROWS[work["device"]] * ROW_TOKENS
    passes = round(work["shape"]["batch_size"] * mean_tokens / pass_tokens)
    clock = StepClock(work["device"])
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            **settings(work, folder),
            packing=True,
            max_length=ROW_TOKENS,
            completion_only_loss=True,
            per_device_train_batch_size=ROWS[work["device"]],
            gradient_accumulation_steps=max(1, passes),
            num_train_epochs=1,
            learning_rate=1e-5,
        )
        trainer: Any = SFTTrainer(
            work["directory"],
            args=config,
            train_dataset=Dataset.from_dict(columns),
            callbacks=[clock],
        )
        labels = trainer.train_dataset["labels"]
        trainer.train()
    count = sum(label != IGNORED for row in labels for label in row)
    report({"epoch": clock.seconds()}, count=count, check=count, package="trl")


if __name__ == "__main__":
    main()
