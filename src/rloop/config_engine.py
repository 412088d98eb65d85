"""The part of a recipe that says what runs the model, and in which memory."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from rloop.config_fields import Count, Positive, Strict


class LoraConfig(Strict):
    """Low-rank adaptation: each target's weight changes by alpha / rank times B A, merged in."""

    rank: Count
    """Rank of the change, peft's `r`."""
    alpha: Positive
    """Scale of the change, times rank; peft's `lora_alpha`."""
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Last parts of the adapted linear layers' names, such as `q_proj`; when absent all but the
    output embedding, peft's `all-linear`."""


class EngineConfig(Strict):
    """What runs the model."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
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

    @field_validator("device")
    @classmethod
    def _check_device(cls, name: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
            raise ValueError(f"{name!r} is no device. Give auto, cpu, cuda or cuda:N.")
        return name
