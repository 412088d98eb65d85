"""How similar many completions are, from the hashes of their token n-grams.

Sets of n-grams become (owner, gram) pairs in sorted arrays, so that comparing all completions of a
problem is one matrix product. Tests compare this with the plain version on sets.
"""

import numpy as np
from numpy.typing import NDArray

from rloop.algo.diversity import Hashes

Tokens = NDArray[np.int32]
"""[T] token ids of a completion."""
Floats = NDArray[np.float64]

_CHUNK = 4096
"""Distinct n-grams in one matrix product; limits its memory."""


def jaccard_matrix(owners: NDArray[np.int64], hashes: Hashes) -> Floats:
    """Return |a and b| / |a or b| of the n-gram sets of every two completions [R, R].

    The arguments are those that `algo.diversity.ngram_hashes` returns.
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
    """Return the mean over pairs of different rows of a symmetric matrix; NaN for a single row."""
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
