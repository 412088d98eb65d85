"""The keys of an evaluation's metrics, `TASK/avg@n` and `TASK/pass@k`, and their order."""

import re
from collections.abc import Iterable

_KEY = re.compile(r"(.+)/((?:avg|pass)@\d+)", re.DOTALL)


def split_key(key: str) -> tuple[str, str] | None:
    """Return (task, metric); None for any other key. A task's name may hold anything.

    Lines of metrics.jsonl have `evaluate/` before it.
    Example: split_key("gsm8k/pass@8") -> ("gsm8k", "pass@8"); split_key("gsm8k/pass@8_low") -> None
    """
    match = _KEY.fullmatch(key)
    return None if match is None else (match[1], match[2])


def in_order(metrics: Iterable[str]) -> list[str]:
    """Return avg@n, then pass@k by rising k; without pass@1 beside avg@n, which it equals."""
    found = sorted(metrics, key=lambda metric: (metric.partition("@")[0], count_of(metric)))
    has_average = any(metric.startswith("avg@") for metric in found)
    return [metric for metric in found if not (has_average and metric == "pass@1")]


def headline(ordered: Iterable[str]) -> list[str]:
    """Return the first and the last of metrics in order: avg@n and pass@(largest k)."""
    metrics = list(ordered)
    return list(dict.fromkeys((*metrics[:1], *metrics[-1:])))


def count_of(metric: str) -> int:
    """Return the k of pass@k, the n of avg@n."""
    return int(metric.partition("@")[2])
