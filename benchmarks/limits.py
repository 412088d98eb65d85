"""How long the matrix products of a work set would take alone, at the machine's measured rate.

Two operations a weight and token forward, four more backward. Counted are products with weights;
those of attention, a few percent at these lengths, are not. A prompt counts once a group, the
output embedding for completion tokens only, and an RL update for mixed groups only: the least that
the method needs, whoever does it.
"""

from collections.abc import Sequence
from typing import Any


def needed_flops(name: str, work: dict[str, Any]) -> float | None:
    """Return the floating-point operations of a work set, None where no model takes part."""
    if name not in _COUNTS:
        return None
    shape = work[name]
    prompts = [len(prompt["ids"]) for prompt in work["prompts"][: shape["problems"]]]
    layers, head = work["machine"]["layer_weights"], work["machine"]["head_weights"]
    return float(_COUNTS[name](shape, prompts, layers, layers + head))


def _sample(shape: dict[str, int], prompts: Sequence[int], layers: int, whole: int) -> int:
    sampled = shape["problems"] * shape["group_size"] * shape["tokens"]
    return 2 * (sampled * whole + sum(prompts) * layers)


def _step(shape: dict[str, int], prompts: Sequence[int], layers: int, whole: int) -> int:
    mixed = prompts[::2]
    trained = len(mixed) * shape["group_size"] * shape["tokens"]
    return _sample(shape, prompts, layers, whole) + 6 * (trained * whole + sum(mixed) * layers)


def _tune(shape: dict[str, Any], prompts: Sequence[int], layers: int, whole: int) -> int:
    fed = sum(prompts[i % len(prompts)] for i in range(shape["trajectories"]))
    written: int = sum(shape["lengths"])
    return 6 * (written * whole + fed * layers)


_COUNTS = {"S1": _sample, "S2": _step, "S3": _tune}
