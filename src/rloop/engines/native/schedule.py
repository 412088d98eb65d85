"""The learning rate of each update of a phase."""

from math import ceil, cos, pi

from rloop.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, update_index: int, num_updates: int) -> float:
    """Return the rate of update `update_index` (from 0) of a phase of `num_updates`.

    Linear over the first `warmup_frac`, where update i of w gets (i + 1) / w of the peak so that
    none is wasted on a rate of zero; then constant, or half a cosine that starts at the peak and
    would reach zero one update after the last. Later updates than planned keep the last rate.
    """
    index = min(update_index, num_updates - 1)
    num_warmup = ceil(config.warmup_frac * num_updates)
    if index < num_warmup:
        return config.learning_rate * (index + 1) / num_warmup
    if config.schedule == "constant":
        return config.learning_rate
    done_frac = (index - num_warmup) / (num_updates - num_warmup)
    return config.learning_rate * 0.5 * (1.0 + cos(pi * done_frac))
