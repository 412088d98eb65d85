"""S3 with rloop: one epoch on stored token ids, at the recipe's defaults."""

from pathlib import Path

import torch
from contenders.clock import Clock
from contenders.measure import read_work, report, stored_completions
from contenders.native import engine_config
from rloop.engines.native.policies import load_policy
from rloop.engines.native.tune import tune

from rloop.engines.native import attention
from rloop.engines.native.learner import Learner
from rloop.recipe.config import OptimizerConfig
from rloop.types import Example, Place


def main() -> None:
    """Learn and report."""
    work = read_work()
    shape = work["shape"]
    policy = load_policy(
        Path(work["directory"]),
        dtype=getattr(torch, work["dtype"]),
        device=torch.device(work["device"]),
        trust_remote_code=False,
        attn_implementation=attention.register(),
    )
    examples = [
        Example(problem_id=str(n), prompt_ids=tuple(prompt), completion_ids=tuple(completion))
        for n, (prompt, completion) in enumerate(stored_completions(work))
    ]
    num_updates = -(-len(examples) // shape["batch_size"])
    optimizer = OptimizerConfig(learning_rate=1e-5)
    learner = Learner(policy.model, optimizer, engine_config(work), num_updates=num_updates)
    place = Place(run="bench", seed=0, iteration=1, phase="finetune")
    clock = Clock(work["device"])
    clock.mark()
    steps = tune(learner, examples, place, epochs=1, batch_size=shape["batch_size"])
    count = sum(int(step.metrics["loss_tokens_count"]) for step in steps)
    clock.mark()
    report({"epoch": clock.seconds()}, count=count, check=count, package="rloop-rl")


if __name__ == "__main__":
    main()
