"""How many RL steps an exploration gets, of those that the run has in all."""

from dataclasses import dataclass
from typing import Self

from rloop.config import ExploreConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBudget:
    """The steps of one exploration.

    Example: with explore.steps=50, total_steps=150 and early_stop.min_steps=10, after explorations
    of 30 and 70 steps: StepBudget(num_steps=50, min_steps=10, left=50)
    """

    num_steps: int
    """What it has where nothing ends it early."""
    min_steps: int
    """What it has at least."""
    left: int | None
    """What it and all later ones have together; None without `explore.total_steps`."""

    @classmethod
    def of(cls, config: ExploreConfig, used: int) -> Self:
        """Return the budget of the next exploration after `used` steps.

        No exploration is left with fewer than `min_steps`: the one before takes them.
        """
        least = config.early_stop.min_steps
        if config.total_steps is None:
            return cls(num_steps=config.steps, min_steps=least, left=None)
        left = config.total_steps - used
        num_steps = left if left < config.steps + least else config.steps
        return cls(num_steps=num_steps, min_steps=least, left=left)

    def may_end(self, step: int) -> bool:
        """Whether a rule may end the exploration after this step."""
        is_enough_left = self.left is None or self.left - step >= self.min_steps
        return step >= self.min_steps and is_enough_left
