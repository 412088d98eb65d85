"""The section `rewards`: what RL learns from."""

import re
from collections.abc import Sequence

from pydantic import Field, model_validator

from rloop.config_fields import Positive, Strict

BUILT_IN_REWARDS = ("accuracy", "format", "length")


class RewardConfig(Strict):
    """A number in [0, 1] that RL adds to a completion's reward."""

    function: str
    """`accuracy` (the task's verifier), `format` (`pattern` fits), `length` (1 - tokens /
    `max_completion_tokens`) or `python:package.module:function`."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_]+$")
    """Name in metrics and the store; the function's own when absent."""
    weight: float = 1.0
    """Factor in the sum; below 0 the number is a penalty, 0 only logs it."""
    pattern: str | None = None
    """Regular expression that all of the completion must match (`.` fits line ends too);
    for `format`, which needs one."""
    timeout_s: Positive | None = None
    """Wall-clock limit of one call (seconds); `tasks.verifier_timeout_s` when absent."""

    @property
    def label(self) -> str:
        """The reward's name."""
        return self.name or self.function.rpartition(":")[2]

    @model_validator(mode="after")
    def _check(self) -> "RewardConfig":
        if self.function not in BUILT_IN_REWARDS and not self.function.startswith("python:"):
            raise ValueError(
                f"function {self.function!r} is unknown. Choose {', '.join(BUILT_IN_REWARDS)} or "
                "python:package.module:function."
            )
        if (self.function == "format") != (self.pattern is not None):
            raise ValueError(
                f"function {self.function} {'has no' if self.pattern else 'needs a'} pattern: the "
                "regular expression is for `format`, as in pattern: '<think>.*</think>.*'."
            )
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(
                f"pattern {self.pattern!r} is not a regular expression: {error}. In YAML write it "
                "in single quotes."
            ) from error
        return self


def weights_of(rewards: Sequence[RewardConfig]) -> dict[str, float]:
    """Return the weight of each reward by its name."""
    return {reward.label: reward.weight for reward in rewards}
