"""Verifiers that are `async def`: many wait in one worker, and what one does costs it alone."""

import os
import time
from dataclasses import replace

import pytest

from rloop.tasks.pool import CLOSED, VerifierPool
from rloop.types import Problem


def double(name: str, answer: str = "0.2") -> Problem:
    return Problem(
        problem_id="t/0",
        task="t",
        question="?",
        answer=answer,
        verifier=f"python:doubles_misbehaving:{name}",
    )


def seconds(begin: float) -> float:
    return time.monotonic() - begin


@pytest.fixture
def pool():
    with VerifierPool(num_workers=2, timeout_s=1.0) as pool:
        pool.verify([(double("waits", "0"), "to import it")])
        yield pool


def test_sixty_four_judges_wait_side_by_side(pool):
    asked = replace(double("waits", "0.5"), verifier_timeout_s=20.0)
    begin = time.monotonic()
    verdicts = pool.verify([(asked, str(number)) for number in range(64)])
    # one after another 32 s; a limit that a busy machine keeps
    assert seconds(begin) < 8
    assert [verdict.score for verdict in verdicts] == [0.5] * 64


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hang", "no verdict within 1 s"),
        ("stay", "no verdict within 1 s"),
        ("block", "no verdict within 1 s"),
        ("die", "the verifier's process died with exit status 7"),
        ("raise", "the verifier raised KeyError: 'raise' in "),
    ],
)
def test_one_that_misbehaves_costs_no_other_a_verdict(pool, text, reason):
    asked = replace(double("misbehaves_async"), verifier_timeout_s=1.0)
    texts = [*"abcdef", text, *"ghijkl"]
    verdicts = dict(zip(texts, pool.verify([(asked, t) for t in texts]), strict=True))
    assert verdicts.pop(text).reason.startswith(reason)
    assert {verdict.kind for verdict in verdicts.values()} == {"correct"}


def test_several_that_misbehave_are_told_apart(pool):
    asked = double("misbehaves_async")
    texts = ["a", "die", "b", "block", "c"]
    kinds = [verdict.kind for verdict in pool.verify([(asked, text) for text in texts])]
    assert kinds == ["correct", "error", "correct", "error", "correct"]


def test_a_problem_has_a_limit_of_its_own(pool):
    slow = double("waits", "1.5")
    short, long = pool.verify([(slow, "x"), (replace(slow, verifier_timeout_s=20.0), "y")])
    assert short.reason == "no verdict within 1 s"
    assert long.score == 0.5
    hang = replace(double("sleeps_on_hang"), verifier_timeout_s=0.3)
    (verdict,) = pool.verify([(hang, "hang")])
    assert verdict.reason == "no verdict within 0.3 s"


def test_async_and_plain_verifiers_are_judged_side_by_side(pool):
    plain = replace(double("-"), verifier="numeric", answer="8")
    pairs = [(plain, "8"), (double("waits"), "a"), (plain, "9"), (double("called_async"), "yes")]
    pairs += [(double("hands_on_to_async"), text) for text in ("yes", "no")]
    found = pool.verify(pairs)
    assert [verdict.reward for verdict in found] == [1.0, 0.5, 0.0, 1.0, 1.0, 0.0]


def test_close_answers_what_still_waits():
    pool = VerifierPool(num_workers=1, timeout_s=60.0)
    pool.verify([(double("waits", "0"), "one that ends")])
    # more than a worker takes at once
    futures = [pool.submit(double("waits", "600"), str(number)) for number in range(200)]
    begin = time.monotonic()
    pool.close()
    assert seconds(begin) < 10
    assert {future.result(timeout=1).reason for future in futures} == {CLOSED}


def test_workers_end_with_the_pool():
    with VerifierPool(num_workers=1, timeout_s=5.0) as pool:
        (verdict,) = pool.verify([(double("tells_process_async"), "")])
    process_id = int(str(verdict.answer))
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{process_id}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{process_id}")
