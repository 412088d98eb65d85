"""S3 with rloop: one epoch on stored token ids, at the recipe's defaults."""

from contenders.clock import Clock
from contenders.measure import read_work, report, stored_completions
from contenders.native import load_engine

from rloop.loop.sft import sft_steps
from rloop.recipe.config import FinetuneConfig, OptimizerConfig
from rloop.types import Example, Place


def main() -> None:
    """Learn and report."""
    work = read_work()
    shape = work["shape"]
    engine = load_engine(work)
    examples = [
        Example(problem_id=str(n), prompt_ids=tuple(prompt), completion_ids=tuple(completion))
        for n, (prompt, completion) in enumerate(stored_completions(work))
    ]
    config = FinetuneConfig(
        epochs=1, batch_size=shape["batch_size"], optimizer=OptimizerConfig(learning_rate=1e-5)
    )
    engine.begin(config.optimizer, seed=0)
    place = Place(run="bench", seed=0, iteration=1, phase="finetune")
    clock = Clock(work["device"])
    clock.mark()
    steps = sft_steps(engine, examples, config, place)
    count = sum(int(step.metrics["loss_tokens_count"]) for step in steps)
    clock.mark()
    report({"epoch": clock.seconds()}, count=count, check=count, package="rloop-rl")


if __name__ == "__main__":
    main()
