"""Writes the work file that every contender reads, and measures the machine: `prepare.py FILE`.

FILE holds the sizes already; this adds the policy's directory, the prompts as text and as token
ids, the lengths of stored completions, and the rate of the model's own matrix products. Runs in a
process of its own so that `run.py` stays light.
"""

import gzip
import json
import os
import random
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import reasoning_gym
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from rloop.config import PromptConfig
from rloop.engines.native.directory import load_tokenizer
from rloop.engines.native.policies import prepare_policy
from rloop.engines.native.prompts import PromptBuilder
from rloop.types import Problem

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
RATE_ROWS = 512
RATE_REPEATS = 5


def main(file: Path) -> None:
    """Complete the work file."""
    work = json.loads(file.read_text())
    directory = prepare_policy(
        work["model"],
        file.parent / "policy",
        seed=0,
        trust_remote_code=False,
        needs_chat_template=True,
    )
    count = max(work[name]["problems"] for name in ("S1", "S2", "S3") if name in work)
    tokenizer = load_tokenizer(directory, trust_remote_code=False)
    work["directory"] = str(directory)
    work["source"], questions = read_questions(count)
    work["prompts"] = build_prompts(tokenizer, questions)
    if "S3" in work:
        numbers = random.Random(0)
        lengths = [numbers.randint(30, 400) for _ in range(work["S3"]["trajectories"])]
        work["S3"]["lengths"] = lengths
    model: Any = AutoModelForCausalLM
    dtype = getattr(torch, work["dtype"])
    work["machine"] = measure_machine(model.from_pretrained(directory, dtype=dtype))
    file.write_text(json.dumps(work))


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
    builder = PromptBuilder(tokenizer, PromptConfig())
    prompts: list[dict[str, object]] = []
    for number, question in enumerate(questions):
        prompt = builder.build(
            Problem(
                problem_id=str(number), task="bench", question=question, answer="", verifier="exact"
            )
        )
        assert tuple(tokenizer(prompt.text)["input_ids"]) == prompt.ids, "the tokenizer adds tokens"
        prompts.append({"text": prompt.text, "ids": prompt.ids})
    return prompts


@torch.inference_mode()
def measure_machine(model: PreTrainedModel) -> dict[str, float]:
    """Return the weights of the layers and of the output embedding, and the rate at which the
    machine multiplies them all with 512 rows (operations per second, the best of five).
    """
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    rows = {w.shape[1]: torch.randn(RATE_ROWS, w.shape[1], dtype=w.dtype) for w in weights}
    times = []
    for _ in range(RATE_REPEATS + 1):
        begin = time.perf_counter()
        for weight in weights:
            torch.nn.functional.linear(rows[weight.shape[1]], weight)
        times.append(time.perf_counter() - begin)
    foreign: Any = model
    head = foreign.get_output_embeddings().weight.numel()
    whole = sum(weight.numel() for weight in weights)
    return {
        "layer_weights": whole - head,
        "head_weights": head,
        "flops_per_s": 2 * RATE_ROWS * whole / min(times[1:]),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
