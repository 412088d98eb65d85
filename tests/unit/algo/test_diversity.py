from itertools import pairwise

import numpy as np
from doubles_ngrams import jaccard, token_ngrams
from hypothesis import given
from hypothesis import strategies as st

from rloop.algo.diversity import farthest_points

completions = st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=8)


def plain_farthest_points(rows, count):
    """Return the same choice by the definition, with sets and loops."""
    grams = [frozenset(token_ngrams(row)) for row in rows]
    chosen = [0]
    while len(chosen) < min(count, len(rows)):
        rest = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: (min(distance(grams, i, j) for j in chosen), -i)))
    return chosen


def distance(grams, i, j):
    return 1.0 - jaccard(grams[i], grams[j])


def test_the_next_one_is_the_one_least_like_those_chosen():
    # 4-grams: {1234, 2345}, the same, {1234, 2349}, {6789}
    # distances from 0: 0, 1 - 1/3, 1; then nearest of 2 is 0 (2/3) and of 1 is 0 (0)
    rows = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 9], [6, 7, 8, 9]]
    assert farthest_points(rows, 2) == [0, 3]
    assert farthest_points(rows, 3) == [0, 3, 2]


def test_short_completions_are_equal_or_different():
    assert farthest_points([[1], [1], [1, 0], []], 3) == [0, 2, 3]


def test_all_are_chosen_when_there_are_no_more():
    assert farthest_points([[1], [1]], 5) == [0, 1]


@given(completions, st.integers(1, 8))
def test_the_fast_choice_is_the_plain_one(rows, count):
    fast, plain = farthest_points(rows, count), plain_farthest_points(rows, count)
    if count >= len(rows):
        assert sorted(fast) == sorted(plain)
    else:
        assert fast == plain


@given(completions)
def test_each_choice_lies_no_farther_from_the_rest_than_the_one_before(rows):
    grams = [frozenset(token_ngrams(row)) for row in rows]
    chosen = farthest_points(rows, len(rows) - 1) if len(rows) > 1 else [0]
    gaps = [
        min(distance(grams, chosen[n], earlier) for earlier in chosen[:n])
        for n in range(1, len(chosen))
    ]
    assert all(second <= first for first, second in pairwise(gaps))


def test_many_completions_of_a_large_vocabulary_agree_with_the_definition():
    # 60 x 37 n-grams out of few texts: some shared, most not, and low bits of hashes that collide
    rng = np.random.default_rng(0)
    parts = rng.integers(0, 150_000, (12, 10))
    rows = [parts[rng.integers(0, 12, 4)].ravel().tolist() for _ in range(60)]
    assert farthest_points(rows, 12) == plain_farthest_points(rows, 12)
