"""Token n-grams of many completions at once, as 64-bit hashes: the fast form of `diversity`.

Sets of n-grams become (owner, gram) pairs in sorted arrays, so that comparing all completions of a
problem is one matrix product. Two different n-grams share a hash with a chance of 2^-64, which for
a million n-grams is 3e-8 in all. `diversity` is the plain form, with which tests compare.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rloop.evaluation.diversity import NGRAM

Tokens = NDArray[np.int32]
"""[T] token ids of a completion."""
Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]

_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier of the hash (2^64 / golden ratio)."""
_CHUNK = 4096
"""Distinct n-grams in one matrix product: bounds its memory."""


def ngram_hashes(completions: Sequence[Tokens], n: int = NGRAM) -> tuple[NDArray[np.int64], Hashes]:
    """Return (owner, hash) of every n-gram of every completion in order, repeats included.

    `owner` is the completion's index. One shorter than n tokens is one n-gram, itself.
    """
    lengths = np.array([len(ids) for ids in completions], np.int64)
    padded_lengths = np.maximum(lengths, n)
    padded = np.full(int(padded_lengths.sum()), -1, np.int64)
    shift = np.cumsum(padded_lengths - lengths) - (padded_lengths - lengths)
    padded[_ranges(lengths) + np.repeat(shift, lengths)] = np.concatenate(completions)
    counts = padded_lengths - n + 1
    owners = np.repeat(np.arange(len(completions)), counts)
    starts = _ranges(counts) + owners * (n - 1)
    hashes = np.zeros(len(owners), np.uint64)
    for offset in range(n):
        hashes = (hashes ^ padded[starts + offset].astype(np.uint64)) * _MIX
        hashes ^= hashes >> np.uint64(32)
    return owners, hashes


def jaccard_matrix(owners: NDArray[np.int64], hashes: Hashes) -> Floats:
    """Return |a and b| / |a or b| of the n-gram sets of every two completions [R, R].

    The arguments are those that `ngram_hashes` returns.
    """
    num_rows = int(owners[-1]) + 1
    names, grams = np.unique(hashes, return_inverse=True)
    pairs = np.unique(grams * num_rows + owners)
    grams, owners = np.divmod(pairs, num_rows)
    sizes = np.bincount(owners, minlength=num_rows)
    is_shared = np.bincount(grams, minlength=len(names))[grams] > 1
    shared = _shared_counts(grams[is_shared], owners[is_shared], num_rows)
    np.fill_diagonal(shared, sizes)
    return shared / (sizes[:, None] + sizes - shared)


def mean_of_pairs(matrix: Floats) -> float:
    """Return the mean over pairs of different rows of a symmetric matrix; NaN for one row."""
    above = matrix[np.triu_indices(len(matrix), k=1)]
    return float(above.mean()) if len(above) else float("nan")


def _shared_counts(grams: NDArray[np.int64], owners: NDArray[np.int64], num_rows: int) -> Floats:
    """Return how many n-grams every two rows share [R, R], from distinct pairs sorted by n-gram."""
    columns = np.unique(grams, return_inverse=True)[1]
    total = np.zeros((num_rows, num_rows))
    last = int(columns[-1]) + 1 if len(columns) else 0
    for start in range(0, last, _CHUNK):
        low, high = np.searchsorted(columns, [start, start + _CHUNK])
        has = np.zeros((num_rows, _CHUNK), np.float32)
        has[owners[low:high], columns[low:high] - start] = 1.0
        total += has @ has.T
    return total


def _ranges(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0 .. total - 1: where each element of ragged rows lies in their flat buffer."""
    return np.arange(int(lengths.sum()))
