"""The learning rate of each update of a phase, and how a phase's work is cut into updates."""

from collections.abc import Sequence
from math import ceil, cos, pi
from typing import TypeVar

from rloop.recipe.config import OptimizerConfig

Item = TypeVar("Item")


def split_evenly(items: Sequence[Item], num_parts: int) -> list[Sequence[Item]]:
    """Split items, in order, into parts whose sizes differ by at most one, larger ones first.

    Adam takes a full step from any batch, so a small last batch would weigh as much as a full one.
    With fewer items than parts, each item is a part.
    """
    num_parts = min(num_parts, len(items))
    size, num_larger = divmod(len(items), max(num_parts, 1))
    begins = [part * size + min(part, num_larger) for part in range(num_parts + 1)]
    return [items[begins[part] : begins[part + 1]] for part in range(num_parts)]


def learning_rate(config: OptimizerConfig, position: float, num_updates: int) -> float:
    """Return the rate of the update at `position` (from 0) of a phase of `num_updates`.

    Linear over the first `warmup_frac`, where update i of w gets (i + 1) / w of the peak, so that
    no update has a rate of zero; then constant, or half a cosine that starts at the peak and would
    reach zero one update after the last. Fractional positions come from RL steps that do fewer
    updates than planned. Updates beyond the plan keep the last rate.
    """
    position = min(position, num_updates - 1)
    num_warmup = ceil(config.warmup_frac * num_updates)
    if position < num_warmup:
        return config.learning_rate * min(1.0, (position + 1) / num_warmup)
    if config.schedule == "constant":
        return config.learning_rate
    done_frac = (position - num_warmup) / (num_updates - num_warmup)
    return config.learning_rate * 0.5 * (1.0 + cos(pi * done_frac))
