"""S1 with rloop's sampler; it also keeps every token's log-probability and decodes the text."""

from collections.abc import Sequence

from contenders.clock import Clock
from contenders.measure import read_work, report
from contenders.native import engine_config, load_endless, make_sampler
from rloop.engines.native.prompts import Prompt

from rloop.engines.native.sampler import Request, Sampler
from rloop.recipe.config import SamplingConfig


def main() -> None:
    """Sample and report."""
    work = read_work()
    shape = work["shape"]
    sampler = make_sampler(load_endless(work), engine_config(work))
    requests = [
        Request(Prompt(prompt["text"], tuple(prompt["ids"])), seed=1000 * number + member)
        for number, prompt in enumerate(work["prompts"][: shape["problems"]])
        for member in range(shape["group_size"])
    ]
    sample(sampler, requests[: shape["group_size"]], 4)
    clock = Clock(work["device"])
    clock.mark()
    count = sample(sampler, requests, shape["tokens"])
    clock.mark()
    report({"sample": clock.seconds()}, count=count, check=count, package="rloop-rl")


def sample(sampler: Sampler, requests: Sequence[Request], num_tokens: int) -> int:
    """Return how many tokens were sampled."""
    settings = SamplingConfig(max_completion_tokens=num_tokens)
    return sum(len(done.completion_ids) for _, done in sampler.sample(requests, settings))


if __name__ == "__main__":
    main()
