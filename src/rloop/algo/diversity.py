"""How completions differ: their token n-grams as 64-bit hashes, and the most different ones.

Two different n-grams share a hash with probability 2^-64; among a million n-grams that is 3e-8 in
all.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NGRAM = 4
"""Tokens in an n-gram, wherever completions are compared."""
Hashes = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.int64]
_LOW = np.uint64(2**16 - 1)
"""Bits of a hash that distinguish most n-grams from the few wanted ones."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier of the hash (2^64 / golden ratio)."""


def ngram_hashes(completions: Sequence[npt.ArrayLike], n: int = NGRAM) -> tuple[IntArray, Hashes]:
    """Return (owner, hash) of every n-gram of every completion in order, repeats included.

    `owner` is the completion's index. A completion shorter than n tokens is one n-gram.
    """
    rows = [np.asarray(ids, np.int64) for ids in completions]
    lengths = np.array([max(len(ids), n) for ids in rows])
    padding = np.full(n, -1)
    flat = np.concatenate([part for ids in rows for part in (ids, padding[: max(0, n - len(ids))])])
    tokens = flat.astype(np.uint64)
    hashes = np.zeros(len(tokens) - n + 1, np.uint64)
    for offset in range(n):
        hashes ^= tokens[offset : offset + len(hashes)]
        hashes *= _MIX
        hashes ^= hashes >> np.uint64(32)
    owners = np.repeat(np.arange(len(rows)), lengths - n + 1)
    return owners, hashes[np.arange(len(owners)) + owners * (n - 1)]


def distinct_ngrams(completions: Sequence[npt.ArrayLike]) -> tuple[IntArray, Hashes]:
    """Return (owner, hash) of the n-grams of each completion without repeats, in sorted order.

    The owner takes as many bits of a hash as it needs, so that both are sorted as one number.
    """
    owners, hashes = ngram_hashes(completions)
    bits = np.uint64(max(1, (len(completions) - 1).bit_length()))
    shift = np.uint64(64) - bits
    keys = np.sort(owners.astype(np.uint64) << shift | hashes >> bits)
    keys = keys[np.append(True, keys[1:] != keys[:-1])]
    return (keys >> shift).astype(np.int64), keys & ((np.uint64(1) << shift) - np.uint64(1))


def farthest_points(completions: Sequence[npt.ArrayLike], count: int) -> list[int]:
    """Return the indices of `count` completions, each chosen farthest from those chosen before.

    The first is index 0; each next one has the largest distance to its nearest chosen one (Gonzalez
    1985), ties to the lower index. Distance is 1 - Jaccard similarity of the sets of token 4-grams;
    a completion shorter than four tokens counts as one n-gram. Returns all if `count` is larger.
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


def _marks(low: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Return for each possible value whether it is among the given ones."""
    marks = np.zeros(int(_LOW) + 1, bool)
    marks[low] = True
    return marks


def _is_in(grams: Hashes, wanted: Hashes) -> npt.NDArray[np.bool_]:
    """Return for each n-gram whether it is among the wanted ones, which are sorted."""
    place = np.minimum(np.searchsorted(wanted, grams), len(wanted) - 1)
    found: npt.NDArray[np.bool_] = wanted[place] == grams
    return found
