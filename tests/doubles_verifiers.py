"""A user's own verifiers, named in recipes of tests as python:doubles_verifiers:NAME."""

from rloop.types import Problem


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
