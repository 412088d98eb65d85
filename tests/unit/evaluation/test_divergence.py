"""KL(base, policy) on a probe: the estimate by hand, its interval, and what is asked about."""

from itertools import pairwise
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from doubles_records import group_at, place_at
from hypothesis import given
from hypothesis import strategies as st

from rloop.evaluation import divergence
from rloop.evaluation.divergence import Probe, k3, mean_divergence, read_probe
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Example


def probe_of(*rows: tuple[str, tuple[float, ...]]) -> Probe:
    """Return a probe of (problem_id, the base's logprobs)."""
    return Probe(
        examples=tuple(
            Example(problem_id=name, prompt_ids=(1,), completion_ids=(2,) * len(logprobs))
            for name, logprobs in rows
        ),
        logprobs=tuple(logprobs for _, logprobs in rows),
        temperature=1.0,
    )


def test_k3_of_a_token_by_hand():
    # r = policy / base = 1/2: 1/2 - 1 + log 2 = 0.193147; r = 2: 2 - 1 - log 2 = 0.306853
    found = k3(np.array([-1.0, -1.0, -1.0]), np.array([-1.0 - log(2), -1.0 + log(2), -1.0]))
    assert found == pytest.approx([0.193147, 0.306853, 0.0], abs=1e-6)


@given(
    base=st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
    policy=st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
)
def test_its_expectation_under_the_base_is_the_divergence(base: list[float], policy: list[float]):
    p, q = np.array(base) / sum(base), np.array(policy) / sum(policy)
    exact = (p * np.log(p / q)).sum()
    assert (p * k3(np.log(p), np.log(q))).sum() == pytest.approx(exact, abs=1e-12)


def test_the_mean_is_over_tokens_and_the_interval_over_problems():
    probe = probe_of(("a", (-1.0,)), ("b", (-1.0, -1.0)), ("b", (-2.0,)))
    logprobs = [(-1.0,), (-1.0 - log(2), -1.0), (-2.0 - log(2),)]
    found = mean_divergence(probe, logprobs, seed=0, confidence=0.95)
    # a: 0 over 1 token; b: (0.193147 + 0 + 0.193147) / 3 = 0.128765; all: 0.386294 / 4 = 0.096574
    assert found.value == pytest.approx(0.096574, abs=1e-6)
    # both draws the same problem a quarter of the time each: the ends are a's and b's means
    assert (found.low, found.high) == pytest.approx((0.0, 0.128765), abs=1e-6)


def test_the_same_seed_gives_the_same_interval():
    probe = probe_of(*((str(i), (-1.0,) * 3) for i in range(9)))
    logprobs = [(-1.0 - 0.1 * i,) * 3 for i in range(9)]
    one, other = (mean_divergence(probe, logprobs, seed=4, confidence=0.9) for _ in range(2))
    assert one == other
    assert one.low < one.value < one.high


def test_every_problem_gives_one_completion_before_any_gives_two(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    place = place_at(1)
    texts = [("a", True), ("b", False), ("c", False)]
    store.append(place, [group_at(place, f"sums/{i}", texts) for i in range(4)])
    probe = read_probe(store)
    assert probe is not None
    members = [chr(example.completion_ids[0]) for example in probe.examples]
    assert members == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    # The order is that of the random streams' seeds, not of names: no task comes first.
    seeds = [place.stream_seed(example.problem_id, 0) for example in probe.examples[:4]]
    assert all(one < other for one, other in pairwise(seeds))
    assert set(probe.logprobs) == {(-0.5, -0.5)}
    assert probe.temperature == 1.0


def test_only_the_first_step_of_the_first_exploration_is_asked(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    assert read_probe(store) is None
    for place in (place_at(2), place_at(1, iteration=2), place_at(1, phase="evaluate")):
        store.append(place, [group_at(place)])
    assert read_probe(store) is None
    first = place_at(1)
    store.append(first, [group_at(first, completions=[("first", True)])])
    probe = read_probe(store)
    assert probe is not None
    assert [bytes(e.completion_ids[:-1]) for e in probe.examples] == [b"first"]


def test_completions_and_tokens_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, place = TrajectoryStore(tmp_path), place_at(1)
    store.append(place, [group_at(place, f"sums/{i}", [("x" * 5, True)]) for i in range(50)])
    probe = read_probe(store)
    assert probe is not None
    assert len(probe.examples) == divergence.MAX_COMPLETIONS
    # A row has 4 + 6 tokens: two do not fill 21, the third does and still counts.
    monkeypatch.setattr(divergence, "MAX_TOKENS", 21)
    probe = read_probe(store)
    assert probe is not None
    assert len(probe.examples) == 3


def test_a_policy_gone_far_is_a_large_number_not_an_overflow():
    found = mean_divergence(probe_of(("a", (-1.0,))), [(-40.0,)], seed=0, confidence=0.95)
    # r = exp(-39): 0 - 1 + 39 = 38
    assert found.value == pytest.approx(exp(-39) - 1 + 39)
