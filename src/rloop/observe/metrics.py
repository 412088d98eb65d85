"""Numbers that merge: each carries what its own reduction needs.

A mean of means is wrong where the parts differ in size: Mean.of([1]) and Mean.of([1, 1, 2]) have
means 1 and 4/3; together they are 5/4, not 7/6.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean as sum and count. Example: Mean(total=3.0, count=4).value is 0.75; NaN of nothing."""

    total: float = 0.0
    count: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Return the mean of some values."""
        listed = list(values)
        return cls(sum(listed), len(listed))

    @property
    def value(self) -> float:
        """The mean itself."""
        return self.total / self.count if self.count else float("nan")

    def __add__(self, other: "Mean") -> "Mean":
        """Return the mean over both."""
        return Mean(self.total + other.total, self.count + other.count)


@dataclass(frozen=True, slots=True)
class Max:
    """A maximum. Example: (Max(2.0) + Max(3.0)).value is 3.0; minus infinity of nothing."""

    value: float = float("-inf")

    def __add__(self, other: "Max") -> "Max":
        """Return the larger; NaN where either is, so that it is not hidden."""
        if other.value != other.value:
            return other
        return other if other.value > self.value else self


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum. Example: (Sum(2.0) + Sum(3.0)).value is 5.0."""

    value: float = 0.0

    def __add__(self, other: "Sum") -> "Sum":
        """Return the sum of both."""
        return Sum(self.value + other.value)


Metric = Mean | Max | Sum


def values_of(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return plain numbers, for a log."""
    return {key: metric.value for key, metric in metrics.items()}
