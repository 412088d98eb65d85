"""S1 with transformers' `generate`: batches of 64 unless the work says more, left padding, sdpa."""

from collections.abc import Sequence
from typing import Any

import torch
from contenders.clock import Clock
from contenders.measure import read_work, report
from transformers import AutoModelForCausalLM, GenerationConfig

BATCH = 64
PAD = 0


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
    generate(model, rows[: shape["group_size"]], 4)
    clock = Clock(work["device"])
    clock.mark()
    batch = shape.get("rows", BATCH)
    parts = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    count = sum(generate(model, part, shape["tokens"]) for part in parts)
    clock.mark()
    report({"sample": clock.seconds()}, count=count, check=count, package="transformers")


def generate(model: Any, rows: Sequence[list[int]], num_tokens: int) -> int:  # noqa: ANN401 (any model)
    """Return how many tokens were sampled; without an EOS id none ends early."""
    width = max(map(len, rows))
    padded = torch.tensor([[PAD] * (width - len(ids)) + ids for ids in rows], device=model.device)
    mask = padded.new_tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in rows])
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=num_tokens, do_sample=True, temperature=1.0, top_k=0, pad_token_id=PAD
    )
    written = model.generate(padded, attention_mask=mask, generation_config=settings)
    return int(written[:, width:].numel())


if __name__ == "__main__":
    main()
