"""Completes the work files that contenders read, and measures the device: `prepare.py FILE...`.

All files are of one model and device. Each has sizes already; this adds the policy's directory, the
prompts as text and as token ids, the lengths of stored completions, and the machine's rates. Runs
in a process of its own so that `run.py` stays light.
"""

import gzip
import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import reasoning_gym
import torch
from contenders.clock import Clock
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from rloop.policies.directory import load_tokenizer
from rloop.policies.prepare import prepare_policy
from rloop.policies.renderer import Renderer
from rloop.recipe.config import PromptConfig
from rloop.types import Problem

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
RATE_ROWS = 512
SQUARE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the square matrices whose product is timed."""
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**32}
RATE_REPEATS = 5


def main(files: Sequence[Path]) -> None:
    """Complete the work files."""
    works = [json.loads(file.read_text()) for file in files]
    first = works[0]
    directory = prepare_policy(
        first["model"],
        files[0].with_name(f"policy-{files[0].stem}"),
        seed=0,
        trust_remote_code=False,
        needs_chat_template=True,
    )
    count = max(work["shape"]["problems"] for work in works)
    source, questions = read_questions(count)
    prompts = build_prompts(load_tokenizer(directory, trust_remote_code=False), questions)
    model: Any = AutoModelForCausalLM
    dtype = getattr(torch, first["dtype"])
    loaded = model.from_pretrained(directory, dtype=dtype).to(first["device"])
    machine = measure_machine(loaded, first["device"])
    for file, work in zip(files, works, strict=True):
        if "trajectories" in work["shape"]:
            numbers = random.Random(0)
            lengths = [numbers.randint(30, 400) for _ in range(work["shape"]["trajectories"])]
            work["shape"]["lengths"] = lengths
        work |= {"directory": str(directory), "source": source, "prompts": prompts}
        file.write_text(json.dumps(work | {"machine": machine}))


def read_questions(count: int) -> tuple[str, list[str]]:
    """Return where they come from and `count` questions: GSM8K's test set where the data are, else
    problems like it.
    """
    path = Path(os.environ.get("RLOOP_DATA", SHARED_DATA)) / "gsm8k_test.jsonl.gz"
    if path.exists():
        with gzip.open(path, "rt") as lines:
            return "GSM8K", [json.loads(line)["problem"] for line in islice(lines, count)]
    made = reasoning_gym.create_dataset("gsm_symbolic", size=count, seed=0)
    return "reasoning-gym gsm_symbolic", [entry["question"] for entry in made]


def build_prompts(
    tokenizer: PreTrainedTokenizerBase, questions: list[str]
) -> list[dict[str, object]]:
    """Return the prompts as text and ids; a tokenizer that adds to the text would give TRL others
    than rloop.
    """
    renderer = Renderer(tokenizer, PromptConfig(), stop_ids=())
    prompts: list[dict[str, object]] = []
    for number, question in enumerate(questions):
        prompt = renderer.prompt(
            Problem(
                problem_id=str(number), task="bench", question=question, answer="", verifier="exact"
            )
        )
        assert tuple(tokenizer(prompt.text)["input_ids"]) == prompt.ids, "the tokenizer adds tokens"
        prompts.append({"text": prompt.text, "ids": prompt.ids})
    return prompts


@torch.inference_mode()
def measure_machine(model: PreTrainedModel, device: str) -> dict[str, float]:
    """Return the sizes of the model and the rates of the device, each the best of five.

    `flops_per_s` is for all of the model's own matrices with 512 rows, `square_flops_per_s` for
    one square product, `bytes_per_s` for what a large copy reads and writes.
    """
    foreign: Any = model
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    like = weights[0]
    rows = {w.shape[1]: like.new_empty(RATE_ROWS, w.shape[1]).normal_() for w in weights}
    head = foreign.get_output_embeddings().weight.numel()
    whole = sum(weight.numel() for weight in weights)
    side, copied = SQUARE[device], COPIED_BYTES[device]
    square = like.new_empty(side, side).normal_()
    there = torch.ones(copied, dtype=torch.uint8, device=like.device)
    back = torch.empty_like(there)
    config = model.config.get_text_config()
    head_size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    key_values = 2 * config.num_hidden_layers * config.num_key_value_heads * head_size
    products_s = best_s(device, lambda: [linear(rows[w.shape[1]], w) for w in weights])
    return {
        "layer_weights": whole - head,
        "head_weights": head,
        "weight_bytes": whole * like.element_size(),
        "token_bytes": key_values * like.element_size(),
        "flops_per_s": 2 * RATE_ROWS * whole / products_s,
        "square_flops_per_s": 2 * side**3 / best_s(device, lambda: square @ square),
        "bytes_per_s": 2 * copied / best_s(device, lambda: back.copy_(there)),
    }


def best_s(device: str, work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of five times, after one that does not count."""
    clock = Clock(device)
    work()
    clock.mark()
    for _ in range(RATE_REPEATS):
        work()
        clock.mark()
    return min(clock.seconds(number, number + 1) for number in range(RATE_REPEATS))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
