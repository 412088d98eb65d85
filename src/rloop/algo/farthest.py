"""Which completions of one problem differ most: greedy farthest-point choice on token 4-grams."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rloop.algo.candidates import IntArray

NGRAM = 4
"""Tokens in an n-gram, as in the trajectory diversity of the evaluation."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier of the n-gram hash (2^64 / golden ratio)."""


def farthest_points(completions: Sequence[npt.ArrayLike], count: int) -> list[int]:
    """Return the indices of `count` completions, each chosen farthest from those chosen before.

    The first is index 0; each next one has the largest distance to its nearest chosen one (Gonzalez
    1985), ties to the lower index. Distance is 1 - Jaccard similarity of the sets of token 4-grams;
    a completion shorter than four tokens counts as one n-gram, itself. All when count is larger.
    """
    if count >= len(completions):
        return list(range(len(completions)))
    owners, grams = _gram_sets(completions)
    sizes = np.bincount(owners, minlength=len(completions))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    is_chosen_gram = np.zeros(grams.max() + 1, bool)
    nearest = np.full(len(completions), np.inf)
    chosen = [0]
    while len(chosen) < count:
        last = chosen[-1]
        own = grams[starts[last] : starts[last + 1]]
        is_chosen_gram[own] = True
        shared = np.bincount(owners, weights=is_chosen_gram[grams], minlength=len(completions))
        is_chosen_gram[own] = False
        distances = 1.0 - shared / (sizes + sizes[last] - shared)
        nearest = np.minimum(nearest, distances)
        nearest[last] = -1.0
        chosen.append(int(np.argmax(nearest)))
    return chosen


def _gram_sets(completions: Sequence[npt.ArrayLike]) -> tuple[IntArray, IntArray]:
    """Return (owner, gram) pairs without repeats, by owner; grams are numbered from 0."""
    windows, lengths = [], []
    for ids in map(np.asarray, completions):
        padded = np.full(max(len(ids), NGRAM), -1, np.int64)
        padded[: len(ids)] = ids
        windows.append(np.lib.stride_tricks.sliding_window_view(padded, NGRAM))
        lengths.append(len(windows[-1]))
    hashes = np.zeros(sum(lengths), np.uint64)
    for column in np.concatenate(windows).astype(np.uint64).T:
        hashes = (hashes ^ column) * _MIX
        hashes ^= hashes >> np.uint64(32)
    names, grams = np.unique(hashes, return_inverse=True)
    owners = np.repeat(np.arange(len(completions)), lengths)
    pairs = np.unique(owners * len(names) + grams)
    return pairs // len(names), pairs % len(names)
