"""S1 with rloop's sampler; it also keeps every token's log-probability."""

from collections.abc import Sequence

from contenders.clock import Clock
from contenders.measure import read_work, report
from contenders.native import load_engine

from rloop.engines.base import Engine, SampleRequest
from rloop.recipe.config import SamplingConfig


def main() -> None:
    """Sample and report."""
    work = read_work()
    shape = work["shape"]
    engine = load_engine(work, is_endless=True)
    requests = [
        SampleRequest(tuple(prompt["ids"]), seed=1000 * number + member)
        for number, prompt in enumerate(work["prompts"][: shape["problems"]])
        for member in range(shape["group_size"])
    ]
    sample(engine, requests[: shape["group_size"]], 4)
    clock = Clock(work["device"])
    clock.mark()
    count = sample(engine, requests, shape["tokens"])
    clock.mark()
    report({"sample": clock.seconds()}, count=count, check=count, package="rloop-rl")


def sample(engine: Engine, requests: Sequence[SampleRequest], num_tokens: int) -> int:
    """Return how many tokens were sampled."""
    settings = SamplingConfig(max_completion_tokens=num_tokens)
    return sum(len(done.completion_ids) for _, done in engine.sample(requests, settings))


if __name__ == "__main__":
    main()
