"""S2 with rloop: the steps of an exploration, at the recipe's defaults."""

from collections import Counter
from concurrent.futures import Future

from contenders.clock import Clock
from contenders.measure import read_work, report, reward
from contenders.native import load_engine

from rloop.engines.rollout import Rollout
from rloop.loop.rl import RLState, RLTrainer
from rloop.recipe.config import ExploreConfig, OptimizerConfig, SamplingConfig
from rloop.types import Place, Problem, Verdict


class MemberVerify:
    """Judges a group's completions right and wrong in turn, whatever they say."""

    def __init__(self) -> None:
        """No completion has been seen."""
        self._seen: Counter[str] = Counter()

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        """Return a future that is done."""
        is_correct = reward(int(problem.problem_id), self._seen[problem.problem_id])
        self._seen[problem.problem_id] += 1
        future: Future[Verdict] = Future()
        future.set_result(Verdict(kind="correct" if is_correct else "wrong"))
        return future


def main() -> None:
    """Learn and report."""
    work = read_work()
    shape = work["shape"]
    num_steps = shape["warmup_steps"] + shape["steps"]
    config = ExploreConfig(
        steps=num_steps,
        prompts_per_step=shape["problems"],
        group_size=shape["group_size"],
        sampling=SamplingConfig(max_completion_tokens=shape["tokens"]),
        optimizer=OptimizerConfig(learning_rate=1e-6),
    )
    engine = load_engine(work, is_endless=True)
    problems = [
        Problem(problem_id=str(n), task="bench", question=p["text"], answer="", verifier="exact")
        for n, p in enumerate(work["prompts"][: shape["problems"]])
    ]
    explorer = RLTrainer(
        rollout=Rollout(engine=engine, verify=MemberVerify()),
        config=config,
        problems=problems,
        place=Place(run="bench", seed=0, iteration=1, phase="explore"),
    )
    engine.begin(config.optimizer, seed=0)
    clock, count, mixed = Clock(work["device"]), 0, 0
    clock.mark()
    for step in explorer.steps(RLState()):
        clock.mark()
        count += int(step.metrics["sampled_tokens_count"])
        mixed += sum(group.is_mixed for group in step.groups)
    assert mixed == num_steps * -(-shape["problems"] // 2), f"{mixed} groups were mixed"
    seconds = clock.seconds(shape["warmup_steps"]) / shape["steps"]
    count //= num_steps
    report({"step": seconds}, count=count, check=count, package="rloop-rl")


if __name__ == "__main__":
    main()
