"""Token n-grams of many completions at once, as 64-bit hashes.

Two different n-grams share a hash with a chance of 2^-64, which for a million n-grams is 3e-8 in
all.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NGRAM = 4
"""Tokens in an n-gram wherever completions are compared."""
Hashes = npt.NDArray[np.uint64]
_IntArray = npt.NDArray[np.int64]
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier of the hash (2^64 / golden ratio)."""


def ngram_hashes(completions: Sequence[npt.ArrayLike], n: int = NGRAM) -> tuple[_IntArray, Hashes]:
    """Return (owner, hash) of every n-gram of every completion in order, repeats included.

    `owner` is the completion's index. One shorter than n tokens is one n-gram, itself.
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


def distinct_ngrams(completions: Sequence[npt.ArrayLike]) -> tuple[_IntArray, Hashes]:
    """Return (owner, hash) of the n-grams of each completion without repeats, in sorted order.

    The owner takes as many bits of a hash as it needs, so that both are sorted as one number.
    """
    owners, hashes = ngram_hashes(completions)
    bits = np.uint64(max(1, (len(completions) - 1).bit_length()))
    shift = np.uint64(64) - bits
    keys = np.sort(owners.astype(np.uint64) << shift | hashes >> bits)
    keys = keys[np.append(True, keys[1:] != keys[:-1])]
    return (keys >> shift).astype(np.int64), keys & ((np.uint64(1) << shift) - np.uint64(1))
