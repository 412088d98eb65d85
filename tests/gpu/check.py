"""Whether the engine is right and fast on a GPU: `python tests/gpu/check.py [--json FILE]`.

Compares sampler and learner on the device with transformers on the CPU, in float32 and bfloat16,
with shared prompts, adapters, offloaded masters and a resumed training; then runs the benchmark
sets G1 to G3. Prints JSON. The exit code is 1 where a number is beyond its limit. `--device cpu
--tiny` tries all of it without a GPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM

from rloop.algo.objective import Objective
from rloop.engines.base import SampleRequest, TrainingSequence
from rloop.engines.native.attention import grouped_attention
from rloop.engines.native.engine import NativeEngine
from rloop.policies.random_model import write_random_model
from rloop.recipe.config import OptimizerConfig, SamplingConfig
from rloop.recipe.load import load_recipe
from rloop.types import PolicyRef

ROOT = Path(__file__).parents[2]
MODELS = {False: "llama-12x768", True: "llama-2x64"}
"""By whether everything is tiny; the first one has 95 M parameters."""
PROMPTS = ("What is 7 + 2?", "Add nine and one, then double it.", "3 * 3 =", "Say 5.")
RATE = 1e-3
DAPO = Objective(loss="dapo", clip_low=0.2, clip_high=0.28)


@dataclass(frozen=True, slots=True)
class Finding:
    """A number that must not be larger than its limit."""

    name: str
    value: float
    limit: float

    @property
    def is_right(self) -> bool:
        """Whether it is, and is a number."""
        return self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and on what everything is done."""

    device: str
    directory: Path
    num_tokens: int

    def engine(self, dtype: str, *changes: str, device: str | None = None) -> NativeEngine:
        """Return an engine that holds the policy; `changes` are overrides of a recipe."""
        overrides = [
            f"engine.device={device or self.device}",
            f"engine.dtype={dtype}",
            "prompt.template={problem}",
            "explore.sampler=native",
            *changes,
        ]
        engine = NativeEngine(load_recipe(ROOT / "recipes" / "tiny.yaml", overrides))
        engine.load(PolicyRef(path=self.directory, name="base"))
        return engine

    def sampled(self, engine: NativeEngine, group_size: int = 4) -> list[TrainingSequence]:
        """Return completions of the prompts, good and bad in turn."""
        requests = [
            SampleRequest(tuple(range(5, 5 + len(prompt))), seed=100 * number + member)
            for number, prompt in enumerate(PROMPTS)
            for member in range(group_size)
        ]
        settings = SamplingConfig(max_completion_tokens=self.num_tokens)
        found = dict(engine.sample(requests, settings))
        return [
            TrainingSequence(
                prompt_ids=request.prompt_ids,
                completion_ids=found[index].completion_ids,
                behavior_logprobs=found[index].behavior_logprobs,
                advantage=1.0 - 2.0 * (index % 2),
            )
            for index, request in enumerate(requests)
        ]


@torch.no_grad()
def plain_logprobs(directory: Path, sequences: Sequence[TrainingSequence]) -> list[torch.Tensor]:
    """Return what transformers thinks of the completions, on the CPU, in float32."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    found = []
    for sequence in sequences:
        ids = torch.tensor([[*sequence.prompt_ids, *sequence.completion_ids]])
        rows = model(ids).logits[0, len(sequence.prompt_ids) - 1 : -1].log_softmax(-1)
        found.append(rows.gather(-1, torch.tensor(sequence.completion_ids)[:, None])[:, 0])
    return found


def mean_gap(found: Sequence[Sequence[float] | None], expected: Sequence[torch.Tensor]) -> float:
    """Return the mean difference of log-probabilities (nats a token)."""
    gaps = [(torch.tensor(one) - other).abs() for one, other in zip(found, expected, strict=True)]
    return float(torch.cat(gaps).mean())


def updates(engine: NativeEngine, sequences: Sequence[TrainingSequence]) -> list[float]:
    """Return losses and norms of the gradients of two updates."""
    found = [engine.update(sequences, DAPO, learning_rate=RATE) for _ in range(2)]
    return [one[name] for one in found for name in ("loss_mean", "grad_norm")]


def distance(found: Sequence[float], expected: Sequence[float]) -> float:
    """Return the largest difference, relative to the largest number."""
    largest = max(map(abs, expected))
    return max(abs(one - other) for one, other in zip(found, expected, strict=True)) / largest


def check_sampler_and_learner(bench: Bench) -> Iterator[Finding]:
    """Compare log-probabilities and updates with those of the CPU in float32."""
    begun = OptimizerConfig(learning_rate=RATE)
    for dtype, gap_limit, update_limit in (("float32", 1e-4, 1e-3), ("bfloat16", 0.05, 0.15)):
        engine = bench.engine(dtype)
        sequences = bench.sampled(engine)
        expected = plain_logprobs(bench.directory, sequences)
        sampled = [sequence.behavior_logprobs for sequence in sequences]
        yield Finding(f"sampler, {dtype}", mean_gap(sampled, expected), gap_limit)
        scored = engine.logprobs(sequences, temperature=1.0)
        yield Finding(f"learner, {dtype}", mean_gap(scored, expected), gap_limit)
        for name, changes in {
            "update": (),
            "shared prompts": ("engine.microbatch_tokens=1",),
            "adapters": ("engine.lora={rank: 4, alpha: 8}",),
            "offloaded": ("engine.offload_optimizer=true",),
            "checkpointed": ("engine.gradient_checkpointing=true",),
        }.items():
            adapters = changes if name == "adapters" else ()
            on_cpu = bench.engine("float32", *adapters, device="cpu")
            found = []
            for one in (bench.engine(dtype, *changes), on_cpu):
                one.begin(begun, seed=0)
                found.append(updates(one, sequences))
                one.close()
            yield Finding(f"{name}, {dtype}", distance(*found), update_limit)


def check_resume(bench: Bench, folder: Path) -> Iterator[Finding]:
    """Compare a training that went straight on with one that was saved and resumed."""
    for dtype in ("float32", "bfloat16"):
        engine = bench.engine(dtype)
        sequences = bench.sampled(engine)
        begun = OptimizerConfig(learning_rate=RATE)
        engine.begin(begun, seed=0)
        updates(engine, sequences)
        state = folder / f"state-{dtype}"
        state.mkdir()
        engine.save_state(state)
        expected = updates(engine, sequences)
        resumed = bench.engine(dtype)
        resumed.begin(begun, seed=0, state=state)
        found = updates(resumed, sequences)
        limit = 0.0 if bench.device == "cpu" else 1e-3
        yield Finding(f"resumed, {dtype}", distance(found, expected), limit)


def check_attention(bench: Bench) -> Iterator[Finding]:
    """Attend in float32 with grouped heads where the path with all pairs in memory is closed."""
    if bench.device != "cuda":
        return
    shapes = [(2, 8, 64, 32), (2, 2, 64, 32), (2, 2, 64, 32)]
    states = [torch.randn(shape, device="cuda") for shape in shapes]
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        query, key, value = states
        found, _ = grouped_attention(torch.nn.Module(), query, key, value, None)
    query, key, value = (tensor.cpu() for tensor in states)
    expected, _ = grouped_attention(torch.nn.Module(), query, key, value, None)
    yield Finding("grouped heads", float((found.cpu() - expected).abs().max()), 1e-4)


def check_vllm(bench: Bench) -> Iterator[Finding]:
    """Sample by vLLM where it is installed, learn while it sleeps, and sample again."""
    if bench.device != "cuda" or find_spec("vllm") is None:
        return
    engine = bench.engine("bfloat16", "explore.sampler=vllm", "engine.max_batch=64")
    engine.begin(OptimizerConfig(learning_rate=RATE), seed=0)
    for name in ("vLLM", "vLLM, after an update"):
        sequences = bench.sampled(engine)
        expected = [torch.tensor(row) for row in engine.logprobs(sequences, temperature=1.0)]
        sampled = [sequence.behavior_logprobs for sequence in sequences]
        yield Finding(name, mean_gap(sampled, expected), 0.05)
        updates(engine, sequences)
    again = bench.sampled(engine)
    same = sum(one == other for one, other in zip(again, bench.sampled(engine), strict=True))
    yield Finding("vLLM: completions not drawn again", float(len(again) - same), len(again) // 4)
    engine.close()


def make_policy(name: str, directory: Path) -> None:
    """Write a random model whose distribution is far from even."""
    write_random_model(name, directory, seed=0)
    file = directory / "model.safetensors"
    weights = {n: w * (4.0 if w.dim() > 1 else 1.0) for n, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def measure_speed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what `benchmarks/run.py` finds in G1 to G3, by rloop alone unless peers are named."""
    file = folder / "bench.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "G", "--rounds", "1"]
    command += ["--device", options.device, "--json", str(file), "--peers", *options.peers]
    done = subprocess.run(
        command + ["--tiny"] * options.tiny, stdout=subprocess.DEVNULL, check=False
    )
    if not file.exists():
        return {"failed": done.returncode}
    sets: dict[str, Any] = json.loads(file.read_text())["sets"]
    return sets


def main(arguments: Sequence[str]) -> int:
    """Check, measure, print; return the exit code."""
    parser = argparse.ArgumentParser(description="Check and measure the engine on a GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="show that everything runs")
    parser.add_argument("--peers", nargs="*", default=[], help="whom G1 to G3 compare with")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is printed here too")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use; --device cpu --tiny tries it without")
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_policy(MODELS[options.tiny], folder / "policy")
        bench = Bench(options.device, folder / "policy", num_tokens=12 if options.tiny else 64)
        findings = [
            *check_sampler_and_learner(bench),
            *check_resume(bench, folder),
            *check_attention(bench),
            *check_vllm(bench),
        ]
        speed = measure_speed(options, folder)
    found = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "parity": [asdict(one) | {"is_right": one.is_right} for one in findings],
        "speed": speed,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    text = json.dumps(found, indent=2) + "\n"
    sys.stdout.write(text)
    if options.json:
        options.json.write_text(text)
    is_measured = all(isinstance(one, dict) and not one["failed"] for one in speed.values())
    return 0 if is_measured and all(one.is_right for one in findings) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
