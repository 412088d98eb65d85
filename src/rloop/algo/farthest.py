"""Which completions of one problem differ most: greedy farthest-point choice on token 4-grams."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rloop.algo.candidates import BoolArray
from rloop.algo.ngrams import Hashes, distinct_ngrams

_LOW = np.uint64(2**16 - 1)
"""Bits of a hash that tell most n-grams from the few looked for."""


def farthest_points(completions: Sequence[npt.ArrayLike], count: int) -> list[int]:
    """Return the indices of `count` completions, each chosen farthest from those chosen before.

    The first is index 0; each next one has the largest distance to its nearest chosen one (Gonzalez
    1985), ties to the lower index. Distance is 1 - Jaccard similarity of the sets of token 4-grams;
    a completion shorter than four tokens counts as one n-gram, itself. All when count is larger.
    """
    if count >= len(completions):
        return list(range(len(completions)))
    owners, grams = distinct_ngrams(completions)
    low = (grams & _LOW).astype(np.uint16)
    sizes = np.bincount(owners, minlength=len(completions))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    nearest = np.full(len(completions), np.inf)
    chosen = [0]
    while len(chosen) < count:
        last = chosen[-1]
        own = slice(starts[last], starts[last + 1])
        maybe = np.flatnonzero(_marks(low[own])[low])
        found = maybe[_is_in(grams[maybe], grams[own])]
        shared = np.bincount(owners[found], minlength=len(completions))
        distances = 1.0 - shared / (sizes + sizes[last] - shared)
        nearest = np.minimum(nearest, distances)
        nearest[last] = -1.0
        chosen.append(int(np.argmax(nearest)))
    return chosen


def _marks(low: npt.NDArray[np.uint16]) -> BoolArray:
    """Return for each possible value whether it is among those given."""
    marks = np.zeros(int(_LOW) + 1, bool)
    marks[low] = True
    return marks


def _is_in(grams: Hashes, wanted: Hashes) -> BoolArray:
    """Return for each n-gram whether it is among the wanted ones, which are sorted."""
    place = np.minimum(np.searchsorted(wanted, grams), len(wanted) - 1)
    found: BoolArray = wanted[place] == grams
    return found
