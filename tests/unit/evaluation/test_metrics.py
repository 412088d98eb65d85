from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rloop.evaluation.intervals import Estimate
from rloop.evaluation.metrics import (
    majority_score,
    mean_estimates,
    paired_estimates,
    pass_at_k,
    problem_values,
)


def evaluate_counts(num_samples, counts, ks, confidence: float = 0.95) -> dict[str, Estimate]:
    return mean_estimates(problem_values(num_samples, counts, ks), confidence)


def paired_difference(num_samples, counts, base, ks) -> dict[str, Estimate]:
    return paired_estimates(
        problem_values(num_samples, counts, ks), problem_values(num_samples, base, ks)
    )


@st.composite
def counts_of_problems(draw: st.DrawFn) -> tuple[int, list[int]]:
    num_samples = draw(st.integers(1, 16))
    counts = draw(st.lists(st.integers(0, num_samples), min_size=1, max_size=40))
    return num_samples, counts


@pytest.mark.parametrize(
    ("num_samples", "num_correct", "k", "expected"),
    [
        (5, 3, 2, 0.9),  # 1 - C(2,2)/C(5,2) = 1 - 1/10
        (8, 1, 1, 0.125),  # 1 - C(7,1)/C(8,1) = 1 - 7/8
        (4, 2, 2, 5 / 6),  # 1 - C(2,2)/C(4,2) = 1 - 1/6
        (8, 0, 8, 0.0),  # nothing to find
        (8, 6, 3, 1.0),  # only 2 wrong, so any 3 hold a correct one
    ],
)
def test_pass_at_k_equals_values_worked_by_hand(
    num_samples: int, num_correct: int, k: int, expected: float
) -> None:
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(expected)


@pytest.mark.parametrize("k", [0, 9])
def test_pass_at_k_is_undefined_without_k_samples(k: int) -> None:
    with pytest.raises(
        ValueError, match=rf"pass@{k} needs at least {k} samples per problem, got 8"
    ):
        pass_at_k(8, 1, k)


def test_pass_at_k_equals_the_product_form_of_humaneval() -> None:
    def product_form(n: int, c: int, k: int) -> float:  # openai/human-eval, evaluation.py
        if n - c < k:
            return 1.0
        return 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))

    for n in range(1, 33):
        for c in range(n + 1):
            for k in range(1, n + 1):
                assert pass_at_k(n, c, k) == pytest.approx(product_form(n, c, k), abs=1e-12)


def test_pass_at_k_equals_the_share_of_subsets_with_a_correct_one() -> None:
    samples = [True, True, False, False, False, False]
    subsets = list(combinations(samples, 3))
    # 20 subsets of 3, of which C(4,3) = 4 hold no correct one: 16/20
    assert pass_at_k(6, 2, 3) == pytest.approx(sum(map(any, subsets)) / len(subsets)) == 0.8


def test_evaluation_is_the_mean_over_problems() -> None:
    result = evaluate_counts(4, [4, 0, 1], (1, 2, 4))
    assert list(result) == ["avg@4", "pass@1", "pass@2", "pass@4"]
    assert result["avg@4"].value == pytest.approx(5 / 12)  # (1 + 0 + 1/4) / 3
    assert result["pass@2"].value == pytest.approx(0.5)  # (1 + 0 + (1 - 3/6)) / 3
    assert result["pass@4"].value == pytest.approx(2 / 3)  # (1 + 0 + 1) / 3


def test_paired_difference_is_the_mean_of_differences() -> None:
    result = paired_difference(4, [4, 2, 1], [2, 2, 2], (4,))
    assert result["avg@4"].value == pytest.approx(1 / 12)  # (2/4 + 0 - 1/4) / 3
    assert result["pass@4"].value == 0.0  # each solves all three


def test_a_paired_interval_is_narrower_than_the_difference_of_unpaired_ones() -> None:
    rng = np.random.default_rng(3)
    base = rng.integers(0, 8, size=100)
    paired = paired_difference(8, base + 1, base, ())["avg@8"]
    # Every problem gains one of 8: 1/8, less 1 - .025^(1/100) = .036217 of 1/8 + 1, plus of 1 - 1/8
    assert (paired.low, paired.high) == pytest.approx((0.084256, 0.156690), abs=1e-6)
    alone = evaluate_counts(8, base, ())["avg@8"]
    assert paired.high - paired.low < alone.high - alone.low


def test_higher_confidence_gives_a_wider_interval() -> None:
    counts = np.random.default_rng(4).integers(0, 9, size=60)
    narrow = evaluate_counts(8, counts, (), confidence=0.5)["avg@8"]
    wide = evaluate_counts(8, counts, (), confidence=0.99)["avg@8"]
    assert wide.low < narrow.low < narrow.high < wide.high


@given(counts_of_problems())
def test_pass_at_k_rises_with_k_and_starts_at_avg(case: tuple[int, list[int]]) -> None:
    num_samples, counts = case
    ks = range(1, num_samples + 1)
    result = evaluate_counts(num_samples, counts, ks)
    values = [result[f"pass@{k}"].value for k in ks]
    assert values[0] == pytest.approx(result[f"avg@{num_samples}"].value)
    assert all(b >= a - 1e-12 for a, b in pairwise(values))


@given(counts_of_problems(), st.randoms(use_true_random=False))
def test_results_do_not_depend_on_the_order_of_problems(case, random) -> None:
    num_samples, counts = case
    shuffled = random.sample(counts, len(counts))
    assert evaluate_counts(num_samples, counts, (1,)) == evaluate_counts(
        num_samples, shuffled, (1,)
    )


@given(counts_of_problems())
def test_interval_contains_the_value_and_stays_in_range(case: tuple[int, list[int]]) -> None:
    for estimate in evaluate_counts(*case, (1, case[0])).values():
        assert -1e-12 <= estimate.low <= estimate.value + 1e-12
        assert estimate.value - 1e-12 <= estimate.high <= 1 + 1e-12


@given(counts_of_problems())
def test_a_paired_difference_of_equal_counts_is_zero_and_never_clear(
    case: tuple[int, list[int]],
) -> None:
    num_samples, counts = case
    for estimate in paired_difference(num_samples, counts, counts, (1,)).values():
        assert estimate.value == 0.0
        assert -1.0 < estimate.low == -estimate.high < 0.0


@pytest.mark.parametrize(
    ("correct", "interval"),
    # (.05 / 2)^(1/16) = exp(-3.688879 / 16) = .794093: Clopper-Pearson of 16 of 16, and of 0 of 16
    [(8, (1.0, 0.794093, 1.0)), (0, (0.0, 0.0, 0.205907))],
)
def test_problems_that_are_all_solved_or_all_unsolved_have_the_exact_interval(
    correct: int, interval: tuple[float, float, float]
) -> None:
    found = evaluate_counts(8, [correct] * 16, (8,))
    for estimate in found.values():
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(interval, abs=1e-6)


def test_exact_intervals_follow_the_confidence() -> None:
    found = evaluate_counts(8, [8] * 16, (), confidence=0.8)["avg@8"]
    assert (found.low, found.high) == pytest.approx((0.865964, 1.0), abs=1e-6)  # .1^(1/16)


def test_a_metric_with_spread_beside_one_without_keeps_its_interval() -> None:
    """avg@8 differs between these problems, pass@8 does not."""
    found = evaluate_counts(8, [1, 8] * 8, (8,))
    assert found["pass@8"].low == pytest.approx(0.794093, abs=1e-6)
    # mean .5625, sd of a problem .4375 / sqrt(16) = .109: about .5625 -+ 2 * .109
    assert found["avg@8"].low == pytest.approx(0.344, abs=0.03)


def test_equal_gains_are_clear_of_zero_only_with_enough_problems() -> None:
    """From none to all: 1 - 2 (1 - .025^(1/P)) is -.204729 for P = 4 and .081484 for P = 6."""
    few = paired_difference(8, [8] * 4, [0] * 4, ())["avg@8"]
    assert (few.value, few.low, few.high) == pytest.approx((1.0, -0.204729, 1.0), abs=1e-6)
    assert not few.is_clear_of_zero  # a sign test of 4 of 4 says p = .125 as well
    more = paired_difference(8, [8] * 6, [0] * 6, ())["avg@8"]
    assert more.low == pytest.approx(0.081484, abs=1e-6)
    assert more.is_clear_of_zero  # 6 of 6: p = .03


@pytest.mark.parametrize(
    ("num_samples", "counts", "ks", "message"),
    [
        (8, [9], (1,), r"must lie in 0 \.\. 8, got 9 \.\. 9"),
        (8, [-1], (1,), r"must lie in 0 \.\. 8, got -1 \.\. -1"),
        (8, [], (1,), "at least one problem, got 0"),
        (8, [[1, 2]], (1,), r"one per problem, got shape \(1, 2\)"),
        (8, [1], (16,), "pass@16 needs at least 16 samples per problem, got 8"),
    ],
)
def test_impossible_counts_are_refused(num_samples, counts, ks, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_counts(num_samples, counts, ks)


def test_different_numbers_of_problems_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same problems for both policies, got 2 and 1"):
        paired_difference(8, [1, 2], [1], (1,))


def test_confidence_must_be_a_probability() -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1, got 95"):
        evaluate_counts(8, [1], (1,), confidence=95)


@pytest.mark.parametrize(
    ("samples", "score"),
    [
        ("7+ 7+ 5- 3-", 1.0),  # 7 has two of four votes
        ("7+ 5- 5- 3-", 0.0),  # 5 has two
        ("7+ 7+ 5- 5- 3-", 0.5),  # 7 and 5 are equally common: each is taken half of the time
        ("7+ 5- 3-", 1 / 3),  # all three are
        ("7+ - - -", 1.0),  # samples without an answer do not vote
        ("- -", 0.0),  # nobody voted
        ("7+ 7+ 7-", 2 / 3),  # one text judged in two ways: its share of right verdicts
    ],
)
def test_the_majority_is_scored_as_worked_by_hand(samples: str, score: float) -> None:
    pairs = [(one[:-1] or None, one[-1] == "+") for one in samples.split()]
    assert majority_score(pairs) == pytest.approx(score)


def test_the_majority_of_one_sample_is_that_sample() -> None:
    assert majority_score([("7", True)]) == 1.0
    assert majority_score([("7", False)]) == 0.0


def test_cover_counts_problems_solved_in_at_least_tau_of_the_samples() -> None:
    # c/n of 0, .2, .4, .6 and 1; 0.6 and 3/5 differ in their last bit
    values = problem_values(5, [0, 1, 2, 3, 5], (5,), taus=(0.2, 0.6, 1.0))
    assert list(values) == ["avg@5", "pass@5", "cover@0.2", "cover@0.6", "cover@1"]
    assert values["cover@0.2"].tolist() == [0, 1, 1, 1, 1]
    assert values["cover@0.6"].tolist() == [0, 0, 0, 1, 1]
    assert values["cover@1"].tolist() == [0, 0, 0, 0, 1]


@given(counts_of_problems())
def test_cover_of_the_smallest_share_is_pass_at_n(case: tuple[int, list[int]]) -> None:
    num_samples, counts = case
    values = problem_values(num_samples, counts, (num_samples,), taus=(1 / num_samples,))
    *_, passed, covered = values.values()
    assert passed.tolist() == covered.tolist()
