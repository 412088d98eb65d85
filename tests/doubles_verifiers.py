"""A user's own verifiers, named in recipes of tests as python:doubles_verifiers:NAME."""

import asyncio

from rloop.types import Problem, Verdict


def fails_on_half(problem: Problem, completion_text: str) -> bool:
    """Raise for what is not a bare answer or a reference."""
    if completion_text == "no idea":
        raise ValueError("cannot read that")
    return problem.answer in completion_text and completion_text != problem.question


def is_short(problem: Problem, completion_text: str) -> bool:
    """Take a bare answer, and any text of words of an even length, so that pools are mixed."""
    is_even = len(completion_text) % 2 == 0 and not completion_text.strip("-. ").isdigit()
    return completion_text == problem.answer or (
        is_even and completion_text not in ("", problem.question)
    )


async def likes_words(problem: Problem, completion_text: str) -> Verdict:
    """Give half a point to words, as a remote judge would."""
    await asyncio.sleep(0)
    score = 0.0 if completion_text == problem.answer else 0.5
    return Verdict(kind="wrong", score=score, reason="words" if score else "")


def half_points(problem: Problem, completion_text: str) -> float:
    """Give 1 to the answer, 0.5 to anything else."""
    return 1.0 if completion_text == problem.answer else 0.5


def fails_on_words(problem: Problem, completion_text: str) -> bool:
    """Raise for what is not the reference."""
    if completion_text != problem.answer:
        raise ValueError("no answer")
    return True
