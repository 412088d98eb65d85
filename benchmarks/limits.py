"""The least time that a work set could take: its operations and bytes over the machine's rates.

Products: two operations a weight and token forward, four more backward. Counted are products with
weights; those of attention, a few percent at these lengths, are not. A prompt counts once a group,
the output embedding for completion tokens only, and an RL update for mixed groups only: the least
that the method needs, whoever does it.

Bytes: a decode step on a GPU reads the weights once, and each row's keys and values so far.
"""

from collections.abc import Sequence
from typing import Any

Shape = dict[str, Any]
Machine = dict[str, Any]


def limit_s(kind: str, work: dict[str, Any]) -> float | None:
    """Return the least seconds of a work set on its device, None where no model takes part."""
    if kind == "other":
        return None
    shape, machine = work["shape"], work["machine"]
    prompts = [len(prompt["ids"]) for prompt in work["prompts"][: shape["problems"]]]
    on_gpu = work["on_gpu"]
    rate: float = machine["square_flops_per_s" if on_gpu else "flops_per_s"]
    if kind == "tune":
        return tune_flops(shape, prompts, machine) / rate
    if on_gpu:
        bandwidth: float = machine["bytes_per_s"]
        sampling_s = decode_bytes(shape, prompts, machine) / bandwidth
    else:
        sampling_s = sample_flops(shape, prompts, machine) / rate
    if kind == "sample":
        return sampling_s
    return sampling_s + update_flops(shape, prompts, machine) / rate


def sample_flops(shape: Shape, prompts: Sequence[int], machine: Machine) -> float:
    """Return the operations of writing every completion; `prompts` are lengths in tokens."""
    sampled = shape["problems"] * shape["group_size"] * shape["tokens"]
    return float(2 * (sampled * _whole(machine) + sum(prompts) * machine["layer_weights"]))


def decode_bytes(shape: Shape, prompts: Sequence[int], machine: Machine) -> float:
    """Return the bytes that the decode steps read, with `rows` completions in flight."""
    num_rows = shape["problems"] * shape["group_size"]
    num_steps = shape["tokens"] * -(-num_rows // shape["rows"])
    weights = num_steps * machine["weight_bytes"]
    written = shape["tokens"] * (shape["tokens"] - 1) // 2
    tokens = shape["group_size"] * sum(length * shape["tokens"] + written for length in prompts)
    return float(weights + tokens * machine["token_bytes"])


def update_flops(shape: Shape, prompts: Sequence[int], machine: Machine) -> float:
    """Return the operations of an update on the mixed groups, every other one."""
    mixed = prompts[::2]
    trained = len(mixed) * shape["group_size"] * shape["tokens"]
    return float(6 * (trained * _whole(machine) + sum(mixed) * machine["layer_weights"]))


def tune_flops(shape: Shape, prompts: Sequence[int], machine: Machine) -> float:
    """Return the operations of an epoch on stored trajectories."""
    fed = sum(prompts[i % len(prompts)] for i in range(shape["trajectories"]))
    return float(6 * (sum(shape["lengths"]) * _whole(machine) + fed * machine["layer_weights"]))


def _whole(machine: Machine) -> int:
    return int(machine["layer_weights"] + machine["head_weights"])
