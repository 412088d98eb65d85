"""S3 with TRL's SFTTrainer: completions packed into rows of 1024 tokens, one row a pass.

Packing is done before the clock starts. More rows a pass would be joined into one longer sequence,
whose masked attention costs more on a CPU.
"""

import tempfile
from typing import Any

from contenders.measure import read_work, report, stored_completions
from contenders.trainer import Clock, settings
from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

ROW_TOKENS = 1024
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
    rows_per_update = round(work["S3"]["batch_size"] * mean_tokens / ROW_TOKENS)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            **settings(work, folder),
            packing=True,
            max_length=ROW_TOKENS,
            completion_only_loss=True,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=max(1, rows_per_update),
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
    report({"epoch": clock.times[-1] - clock.times[0]}, count=count, check=count, package="trl")


if __name__ == "__main__":
    main()
