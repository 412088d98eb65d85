"""The recipe's `engine`: what runs the model, and how."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rloop.recipe.checks import check_device
from rloop.recipe.fields import Count, Positive, Strict

Device = Annotated[str, AfterValidator(check_device)]


class LoraConfig(Strict):
    """Low-rank adaptation: each target's weight changes by alpha / rank times B A, merged in."""

    rank: Count
    """Rank of the change, peft's `r`."""
    alpha: Positive
    """Scale of the change, times rank; peft's `lora_alpha`."""
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Last parts of the adapted linear layers' names, such as `q_proj`; when absent all but the
    output embedding, peft's `all-linear`."""


class TinkerConfig(Strict):
    """A server that speaks the Tinker protocol; its key comes from the variable TINKER_API_KEY."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^/@\s]+(/[^@\s]*)?$")]
    """Where the server answers, such as `http://127.0.0.1:8000`."""
    base_model: str | None = None
    """What the server calls the model of `policy.path`; the same when absent."""
    rank: Count = 32
    """Rank of the adapter that is trained."""
    max_in_flight: Count = 64
    """Prompts that are sampled at the same time, each with its whole group."""
    patience_s: Positive = 300.0
    """How long a server that is away, busy or failing is asked again (seconds)."""
    loss_reduction: Literal["auto", "sum", "mean"] = "auto"
    """What the server does with its tokens' losses: adds them up, or takes means over a sequence's
    tokens and then over sequences. `auto` finds out where a server is not known to add."""


class EngineConfig(Strict):
    """What runs the model."""

    name: Literal["native", "tinker"] = "native"
    """`native` runs it here; `tinker` on a server, which `engine.tinker` names. The keys below that
    are about devices, memory and `lora` are the native engine's."""
    tinker: TinkerConfig | None = None
    """The server of `engine.name: tinker`."""
    device: Device = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps` (an Apple GPU); `auto` takes CUDA, else `mps`, else
    the CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; master weights are always float32. `auto` takes bfloat16 where
    the device multiplies it natively."""
    max_batch: Count = 256
    """Completions decoded at the same time."""
    fused: bool = True
    """Decode on a CPU with kernels that the machine's C compiler builds once; a warning says where
    that cannot be done."""
    microbatch_tokens: Count = 4096
    """Most tokens of one forward and backward pass, pads included where rows are padded. A CPU's
    packed rows have none, and are joined up to 1024 only."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more work."""
    offload_optimizer: bool = False
    """Keep master weights, gradients and optimizer moments in CPU memory; with `engine.lora` the
    start policy's weights instead."""
    lora: LoraConfig | None = None
    """Train low-rank changes instead of all weights, fresh ones in each phase; off when absent."""
