import math

import numpy as np
import pytest
from doubles_ngrams import diversity, jaccard, token_ngrams
from hypothesis import given
from hypothesis import strategies as st

from rloop.algo.diversity import ngram_hashes
from rloop.evaluation.similarity import jaccard_matrix, mean_of_pairs

completion = st.lists(st.integers(0, 3), max_size=12)
groups = st.lists(completion, min_size=1, max_size=6)


def arrays(group) -> list[np.ndarray]:
    return [np.array(ids, np.int32) for ids in group]


@given(groups)
def test_similarities_are_exactly_those_of_the_plain_form(group):
    sets = [frozenset(token_ngrams(ids)) for ids in group]
    plain = [[jaccard(a, b) for b in sets] for a in sets]
    assert jaccard_matrix(*ngram_hashes(arrays(group))).tolist() == plain


@given(groups, st.integers(1, 5))
def test_hashes_are_as_distinct_as_the_ngrams(group, n: int):
    owners, hashes = ngram_hashes(arrays(group), n)
    grams = [(i, gram) for i, ids in enumerate(group) for gram in token_ngrams(ids, n)]
    assert owners.tolist() == [i for i, _ in grams]
    assert len(set(zip([g for _, g in grams], hashes.tolist(), strict=True))) == len(
        {g for _, g in grams}
    )


def test_long_completions_of_large_vocabularies_agree_with_the_plain_form():
    # more distinct shared n-grams than one matrix product takes
    rng = np.random.default_rng(0)
    common = rng.integers(0, 150_000, 9000)
    group = [np.concatenate([common[:8500], rng.integers(0, 150_000, 500)]) for _ in range(3)]
    found = jaccard_matrix(*ngram_hashes(arrays(group)))
    plain = diversity([[ids.tolist() for ids in group]])
    assert 1 - mean_of_pairs(found) == pytest.approx(plain, abs=1e-12)


def test_a_prefix_is_not_its_own_padding():
    # shorter than four tokens: each is one n-gram of its own
    assert jaccard_matrix(*ngram_hashes(arrays([[], [0], [0, 0], [0]]))).tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 1],
        [0, 0, 1, 0],
        [0, 1, 0, 1],
    ]


def test_one_completion_has_no_pair():
    assert math.isnan(mean_of_pairs(np.ones((1, 1))))


def test_the_plain_form_equals_values_worked_by_hand():
    first = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [7, 8, 9, 7]]
    # {1234, 2345} and {1234, 2346} share one of three n-grams, the other pairs none: mean 1/9;
    # the second problem: 1 -> mean (1/9 + 1) / 2 = 5/9
    assert diversity([first, [[5, 5], [5, 5]]]) == pytest.approx(4 / 9)
