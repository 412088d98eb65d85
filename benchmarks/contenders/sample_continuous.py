"""S1 with transformers' continuous batching, 64 rows at a time unless the work says more.

Left alone it takes nine tenths of a machine's memory for its cache, so the cache is given the size
that those rows need.
"""

from collections.abc import Sequence
from typing import Any

import torch
from contenders.clock import Clock
from contenders.measure import read_work, report, skip
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

BATCH = 64
PAGE = 32
NEVER = -1
"""Stands for an EOS id that no token has."""


def main() -> None:
    """Sample and report."""
    work = read_work()
    shape = work["shape"]
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(
        work["directory"], dtype=getattr(torch, work["dtype"]), attn_implementation="sdpa"
    ).to(work["device"])
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    prompts = [prompt["ids"] for prompt in work["prompts"][: shape["problems"]]]
    rows = [ids for ids in prompts for _ in range(shape["group_size"])]
    batch = shape.get("rows", BATCH)
    generate(model, rows[: shape["group_size"]], 4, batch)
    clock = Clock(work["device"])
    clock.mark()
    count = generate(model, rows, shape["tokens"], batch)
    clock.mark()
    wanted = len(rows) * shape["tokens"]
    if count < wanted:
        skip(f"it wrote {count:,} of {wanted:,} tokens and said no more")
        return
    report({"sample": clock.seconds()}, count=count, check=count, package="transformers")


def generate(model: Any, rows: Sequence[list[int]], num_tokens: int, batch: int) -> int:  # noqa: ANN401 (any model)
    """Return how many tokens were sampled."""
    longest = max(map(len, rows)) + num_tokens
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=num_tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        eos_token_id=NEVER,
        pad_token_id=0,
    )
    memory = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=batch * (-(-longest // PAGE) + 1),
        max_batch_tokens=4096,
        max_requests_per_batch=batch,
    )
    written = model.generate_batch(
        rows, generation_config=settings, continuous_batching_config=memory
    )
    return sum(len(output.generated_tokens) for output in written.values())


if __name__ == "__main__":
    main()
