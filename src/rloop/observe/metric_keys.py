"""Keys of metrics: an evaluation's `TASK/avg@n`, `TASK/pass@k` and so on, an RL step's rewards;
keys of recipes."""

import re
from collections.abc import Collection, Iterable, Mapping
from statistics import fmean
from typing import Any

_KEY = re.compile(r"(.+)/((?:avg|maj|pass)@\d+|cover@(?:0\.\d+|1))", re.DOTALL)
_ORDER = ("avg", "maj", "pass", "cover")
_REWARD = re.compile(r"reward_(\w+)_mean")


def split_key(key: str) -> tuple[str, str] | None:
    """Return (task, metric); None for any other key. A task's name may contain anything.

    Lines of metrics.jsonl have `evaluate/` before it.
    Example: split_key("gsm8k/pass@8") -> ("gsm8k", "pass@8"); split_key("gsm8k/pass@8_low") -> None
    """
    match = _KEY.fullmatch(key)
    return None if match is None else (match[1], match[2])


def best_policy(
    lines: Iterable[Mapping[str, Any]], policies: Collection[str], best_by: str
) -> str | None:
    """Return which of the policies has the highest held-out measure, of equals the first.

    `lines` are evaluations, of which the last of a policy counts; `best_by` is the recipe's. None
    where none was measured.
    """
    task, _, metric = best_by.rpartition("/")
    scores: dict[str, float] = {}
    for line in lines:
        found = []
        for key, value in line.items():
            name, measure = split_key(key.removeprefix("evaluate/")) or ("", "")
            is_meant = metric in (measure, measure.partition("@")[0]) and task in ("", name)
            if is_meant and value is not None:
                found.append(float(value))
        if found and line["policy"] in policies:
            scores[line["policy"]] = fmean(found)
    return max(scores, key=lambda policy: scores[policy], default=None)


def in_order(metrics: Iterable[str]) -> list[str]:
    """Return avg@n, maj@n, pass@k by k, cover@tau by tau.

    pass@1 is left out if avg@n is there, which it equals.
    """
    found = sorted(metrics, key=_place)
    has_average = any(metric.startswith("avg@") for metric in found)
    return [metric for metric in found if not (has_average and metric == "pass@1")]


def headline(ordered: Iterable[str]) -> list[str]:
    """Return avg@n and pass@(largest k) of ordered metrics: the first, and the last pass@k."""
    metrics = list(ordered)
    passes = [metric for metric in metrics if metric.startswith("pass@")]
    return list(dict.fromkeys((*metrics[:1], *passes[-1:])))


def _place(metric: str) -> tuple[int, float]:
    kind, _, number = metric.partition("@")
    return _ORDER.index(kind), float(number)


def reward_names(metrics: Iterable[str]) -> list[str]:
    """Return the names of the recipe's rewards among the keys of an RL step, in their order."""
    return [found[1] for key in metrics if (found := _REWARD.fullmatch(key))]


def training_accuracy(line: Mapping[str, Any]) -> float | None:
    """Return the fraction of an RL step's completions that was correct, from its line of the log.

    If the reward is correctness, this is its mean.
    """
    value = line.get("explore/correct_frac", line.get("explore/reward_mean"))
    return None if value is None else float(value)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested JSON by dotted key, as `--set` has them; a plain list stays one.

    Example: {"a": [{"b": None}], "c": [1, 2]} -> {"a.0.b": None, "c": [1, 2]}.
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, list) and any(isinstance(member, Mapping) for member in value):
            value = {str(index): member for index, member in enumerate(value)}
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
