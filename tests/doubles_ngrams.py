"""The plain form of `rloop.evaluation.similarity`: sets of n-grams, compared pair by pair."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from statistics import fmean

TokenIds = Sequence[int]
Ngrams = frozenset[tuple[int, ...]]


def token_ngrams(completion_ids: TokenIds, n: int = 4) -> list[tuple[int, ...]]:
    """Return the n-grams of a completion in order; the whole of it when it is shorter."""
    return [tuple(completion_ids[i : i + n]) for i in range(max(1, len(completion_ids) - n + 1))]


def jaccard(a: Ngrams, b: Ngrams) -> float:
    """Return |a and b| / |a or b|."""
    return len(a & b) / len(a | b)


def diversity(completions: Iterable[Sequence[TokenIds]]) -> float:
    """Return 1 - mean pairwise similarity within a problem, averaged over problems."""
    return 1.0 - _mean(
        [
            fmean(jaccard(a, b) for a, b in combinations(map(_set, group), 2))
            for group in completions
            if len(group) >= 2
        ]
    )


def similarity(a: Mapping[str, Sequence[TokenIds]], b: Mapping[str, Sequence[TokenIds]]) -> float:
    """Return the mean similarity of completions of the problems that two steps share."""
    return _mean(
        [
            fmean(jaccard(x, y) for x, y in product(map(_set, a[name]), map(_set, b[name])))
            for name in a
            if a[name] and b.get(name)
        ]
    )


def _set(completion_ids: TokenIds) -> Ngrams:
    return frozenset(token_ngrams(completion_ids))


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else float("nan")
