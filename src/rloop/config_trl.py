"""The part of a recipe that `engine.name: trl` alone reads."""

from typing import Any, Literal

from rloop.config_fields import Count, CountOrZero, Positive, Strict


class LaunchConfig(Strict):
    """Which processes `engine: trl` runs on; they stay alive from phase to phase."""

    processes: Count = 1
    """Processes in all, over every machine. One alone works inside rloop itself; more are started
    by `accelerate launch`."""
    machines: Count = 1
    """Machines; all see the run directory at the same path."""
    machine_rank: CountOrZero = 0
    """This machine's number; `rloop run` with the same recipe is started on each, and machine 0
    holds the run."""
    address: str = "127.0.0.1"
    """Address of machine 0 as the others see it."""
    port: CountOrZero = 0
    """Port at which the processes meet; 0 takes a free one (one machine only)."""
    silence_s: Positive = 90.0
    """A worker that hangs, or whose machine or network is gone, ends the run after so long
    (seconds); one that dies ends it at once."""
    preset: Literal["cpu", "multi_gpu", "fsdp2", "zero3"] = "multi_gpu"
    """Replicas on CPUs or GPUs; or weights, gradients and moments in shards, by FSDP2 or by
    DeepSpeed ZeRO-3. `engine.device: cpu` makes `multi_gpu` replicas on CPUs."""
    config_file: str | None = None
    """A file of `accelerate config` that `accelerate launch` reads instead of the preset."""


class TrlExtra(Strict):
    """Options for TRL's own classes, which check them; none that rloop sets itself."""

    grpo: dict[str, Any] = {}
    """Options of `GRPOConfig`, such as `vllm_mode: server` beside `explore.sampler: vllm`."""
    sft: dict[str, Any] = {}
    """Options of `SFTConfig`."""


class TrlConfig(Strict):
    """How `engine: trl` runs; other engines do not read it."""

    launch: LaunchConfig = LaunchConfig()
    """The processes."""
    extra: TrlExtra = TrlExtra()
    """What is handed on to TRL."""

    @property
    def set_values(self) -> tuple[str, ...]:
        """The values that are not the default, as `launch.processes=2`."""
        return tuple(
            f"{section}.{name}={value}"
            for section in type(self).model_fields
            for name, value in getattr(self, section)
            if value != type(getattr(self, section)).model_fields[name].default
        )
