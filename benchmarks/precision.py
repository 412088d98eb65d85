"""What a short fine-tuning leaves of its gain in each precision: `python benchmarks/precision.py RUN`.

Fine-tunes the base policy of a run on its first expert set, two epochs with a cosine, as float32,
as bfloat16 and as bfloat16 whose weights are rounded to nearest; prints the expert set's negative
log-likelihood (nats a token) before and after, as sampled and saved. docs/results/experiments.md has figures.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rloop.engines.base import TrainingSequence
from rloop.engines.native import attention
from rloop.engines.native.learner import Learner
from rloop.engines.native.logprobs import sequence_logprobs
from rloop.loop.sft import sft_steps
from rloop.policies.checkpoint import load_policy
from rloop.policies.prepare import prepare_policy
from rloop.policies.rounding import StochasticRounding
from rloop.recipe.config import FinetuneConfig, OptimizerConfig
from rloop.recipe.engine import EngineConfig
from rloop.recipe.load import load_recipe
from rloop.store.expert import read_examples
from rloop.types import Example, Place

BY_CHANCE = StochasticRounding.write
MODES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "nearest": torch.bfloat16}


def to_nearest(
    _: StochasticRounding, name: str, exact: torch.Tensor, rounded: torch.Tensor
) -> None:
    """Round as torch does, in the place of `StochasticRounding.write`."""
    del name
    with torch.no_grad():
        rounded.copy_(exact)


def measure(run: Path, mode: str, examples: Sequence[Example], options: argparse.Namespace) -> None:
    """Fine-tune in one precision and print a line of JSON."""
    StochasticRounding.write = to_nearest if mode == "nearest" else BY_CHANCE  # type: ignore
    recipe = load_recipe(run / "recipe.yaml", [])
    path = prepare_policy(
        recipe.policy.path,
        run / "base",
        seed=recipe.seed,
        trust_remote_code=False,
        needs_chat_template=False,
    )
    model = load_policy(
        path,
        dtype=MODES[mode],
        device=torch.device("cpu"),
        trust_remote_code=False,
        attn_implementation=attention.register(),
    ).model
    start = [weight.detach().clone() for weight in model.parameters()]
    sequences = [
        TrainingSequence(prompt_ids=e.prompt_ids, completion_ids=e.completion_ids) for e in examples
    ]
    num_tokens = sum(len(s.completion_ids) for s in sequences)

    def nll() -> float:
        rows = sequence_logprobs(model, sequences, temperature=1.0, microbatch_tokens=2048)
        return -sum(map(sum, rows)) / num_tokens

    before = nll()
    config = FinetuneConfig(
        epochs=2,
        batch_size=options.batch,
        optimizer=OptimizerConfig(learning_rate=options.rate, warmup_frac=0.03, schedule="cosine"),
    )
    learner: Any = Learner(model, config.optimizer, EngineConfig(microbatch_tokens=2048))
    place = Place(run="precision", seed=0, iteration=1, phase="finetune")
    begin = time.perf_counter()
    num_updates = len(list(sft_steps(learner, examples, config, place)))
    seconds = time.perf_counter() - begin
    moved = [(w != s).sum() for w, s in zip(model.parameters(), start, strict=True)]
    found = {
        "mode": mode,
        "updates": num_updates,
        "before": round(before, 4),
        "after": round(nll(), 4),
        "weights_moved_frac": round(float(sum(moved)) / sum(w.numel() for w in start), 4),
        "seconds": round(seconds, 1),
    }
    print(json.dumps(found), flush=True)


def main(arguments: Sequence[str]) -> None:
    """Measure every precision that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run directory that has selected once")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--rate", type=float, default=3e-5)
    parser.add_argument("--examples", type=int, default=82)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args(arguments)
    examples = read_examples(options.run, 1)[: options.examples]
    for mode in options.modes.split(","):
        measure(options.run, mode, examples, options)


if __name__ == "__main__":
    main(sys.argv[1:])
