"""How different completions are: token n-grams within a problem, between steps, and final answers.

A completion shorter than n tokens counts as one n-gram, itself, so that short answers compare as
equal or different instead of as nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from statistics import fmean

from rloop.algo.ngrams import NGRAM

TokenIds = Sequence[int]
Ngrams = frozenset[tuple[int, ...]]


def token_ngrams(completion_ids: TokenIds, n: int = NGRAM) -> list[tuple[int, ...]]:
    """Return the n-grams of a completion in order, [T - n + 1]; the whole of it when T < n."""
    return [tuple(completion_ids[i : i + n]) for i in range(max(1, len(completion_ids) - n + 1))]


def jaccard(a: Ngrams, b: Ngrams) -> float:
    """Return |a and b| / |a or b| of two non-empty sets: 1 for equal, 0 for disjoint."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def trajectory_diversity(completions: Iterable[Sequence[TokenIds]]) -> float:
    """Return 1 - mean pairwise Jaccard similarity of 4-grams, averaged over problems.

    `completions` has one entry per problem: the token ids of its completions. Problems with fewer
    than two have no pair and are left out; NaN when none is left.
    """
    similarities = [
        fmean(jaccard(a, b) for a, b in combinations(map(_ngram_set, group), 2))
        for group in completions
        if len(group) >= 2
    ]
    return 1.0 - _mean(similarities)


def inter_step_similarity(
    step_a: Mapping[str, Sequence[TokenIds]], step_b: Mapping[str, Sequence[TokenIds]]
) -> float:
    """Return the mean Jaccard similarity of 4-grams across two steps, over shared problems.

    Each step maps a problem id to the token ids of its completions; every completion of step a is
    compared with every one of step b. NaN when the steps share no problem.
    """
    shared = [name for name in step_a if step_a[name] and step_b.get(name)]
    return _mean(
        [
            fmean(
                jaccard(a, b)
                for a, b in product(map(_ngram_set, step_a[name]), map(_ngram_set, step_b[name]))
            )
            for name in shared
        ]
    )


def distinct_answers(answers: Iterable[Sequence[str | None]]) -> float:
    """Return the mean over problems of the number of distinct final answers.

    One entry per problem; None (no answer found) is no answer. NaN without problems.
    """
    return _mean([float(len(set(group) - {None})) for group in answers])


def distinct_n(completions: Iterable[TokenIds], n: int) -> float:
    """Return distinct n-grams / all n-grams of all completions (Li et al. 2016); NaN if none."""
    ngrams = [ngram for ids in completions for ngram in token_ngrams(ids, n)]
    return len(set(ngrams)) / len(ngrams) if ngrams else float("nan")


def _ngram_set(completion_ids: TokenIds) -> Ngrams:
    return frozenset(token_ngrams(completion_ids))


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else float("nan")
