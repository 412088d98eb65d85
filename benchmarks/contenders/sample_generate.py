"""S1 with transformers' `generate`: batches of 64, left padding, sdpa."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from contenders.measure import read_work, report
from transformers import AutoModelForCausalLM, GenerationConfig

BATCH = 64
PAD = 0


def main() -> None:
    """Sample and report."""
    work = read_work()
    shape = work["S1"]
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(
        work["directory"], dtype=getattr(torch, work["dtype"]), attn_implementation="sdpa"
    )
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    prompts = [prompt["ids"] for prompt in work["prompts"][: shape["problems"]]]
    rows = [ids for ids in prompts for _ in range(shape["group_size"])]
    generate(model, rows[: shape["group_size"]], 4)
    begin = time.perf_counter()
    parts = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    count = sum(generate(model, part, shape["tokens"]) for part in parts)
    seconds = time.perf_counter() - begin
    report({"sample": seconds}, count=count, check=count, package="transformers")


def generate(model: Any, rows: Sequence[list[int]], num_tokens: int) -> int:  # noqa: ANN401 (any model)
    """Return how many tokens were sampled; without an EOS id none ends early."""
    width = max(map(len, rows))
    padded = torch.tensor([[PAD] * (width - len(ids)) + ids for ids in rows])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in rows])
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=num_tokens, do_sample=True, temperature=1.0, top_k=0, pad_token_id=PAD
    )
    written = model.generate(padded, attention_mask=mask, generation_config=settings)
    return int(written[:, width:].numel())


if __name__ == "__main__":
    main()
