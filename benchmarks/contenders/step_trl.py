"""S2 with TRL's GRPOTrainer: the same loss, no divergence penalty, one generation batch a step."""

import tempfile
from collections import Counter
from typing import Any

from contenders.measure import read_work, report, reward
from contenders.trainer import StepClock, settings
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

NEVER = -1
"""Stands for an EOS id that no token has."""
ROWS = {"cpu": 16, "cuda": 64}
"""Sequences of one forward and backward pass: on a CPU about the 4096 tokens that rloop takes."""


def main() -> None:
    """Learn and report."""
    work = read_work()
    shape = work["shape"]
    num_steps = shape["warmup_steps"] + shape["steps"]
    texts = [prompt["text"] for prompt in work["prompts"][: shape["problems"]]]
    clock, lengths = StepClock(work["device"]), list[int]()

    def member_reward(
        completion_ids: list[list[int]], number: list[int], **_: object
    ) -> list[float | None]:
        """Reward a group's completions in turn, whatever they say."""
        seen: Counter[int] = Counter()
        rewards: list[float | None] = []
        for ids, problem in zip(completion_ids, number, strict=True):
            rewards.append(reward(problem, seen[problem]))
            seen[problem] += 1
            lengths.append(len(ids))
        return rewards

    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = GRPOTrainer(
            work["directory"],
            member_reward,
            args=arguments(work, folder, num_steps),
            train_dataset=Dataset.from_dict({"prompt": texts, "number": range(len(texts))}),
            callbacks=[clock],
        )
        trainer.eos_token_ids = [NEVER]
        trainer.train()
    seconds = clock.seconds(shape["warmup_steps"]) / shape["steps"]
    count = sum(lengths) // num_steps
    report({"step": seconds}, count=count, check=count, package="trl")


def arguments(work: dict[str, Any], folder: str, num_steps: int) -> GRPOConfig:
    """Return TRL's arguments; those not named are its own."""
    shape = work["shape"]
    num_rows = shape["problems"] * shape["group_size"]
    pass_rows = min(ROWS[work["device"]], num_rows)
    return GRPOConfig(
        **settings(work, folder),
        per_device_train_batch_size=pass_rows,
        gradient_accumulation_steps=num_rows // pass_rows,
        num_generations=shape["group_size"],
        max_completion_length=shape["tokens"],
        generation_kwargs={"eos_token_id": None},
        max_steps=num_steps,
        learning_rate=1e-6,
        loss_type="dapo",
        epsilon_high=0.28,
        beta=0.0,
        shuffle_dataset=False,
    )


if __name__ == "__main__":
    main()
