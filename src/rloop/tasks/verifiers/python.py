"""`python:package.module:function`: the user's own verifier.

The function takes (problem, completion text) and returns True, False or a `Verdict`; anything else
is an error verdict that says so. It runs in a worker process that can be killed.
"""

import importlib
from functools import lru_cache
from typing import Any

from rloop.types import Problem, Verdict

PREFIX = "python:"


def judge(problem: Problem, text: str) -> Verdict:
    """Call the user's function and check what it returns."""
    result = load_function(problem.verifier)(problem, text)
    if isinstance(result, bool):
        return Verdict(kind="correct" if result else "wrong")
    if isinstance(result, Verdict):
        return _checked(result, problem.verifier)
    reason = f"{problem.verifier} returned {result!r:.60}; it must return a bool or a Verdict"
    return Verdict(kind="error", reason=reason)


def _checked(verdict: Verdict, spec: str) -> Verdict:
    is_sound = verdict.kind in ("correct", "wrong", "error")
    texts = (verdict.reason, verdict.verifier_version)
    is_sound = is_sound and all(isinstance(text, str) for text in texts)
    if is_sound and (verdict.answer is None or isinstance(verdict.answer, str)):
        return verdict
    return Verdict(kind="error", reason=f"{spec} returned a malformed verdict: {verdict!r:.100}")


@lru_cache(maxsize=64)
def load_function(spec: str) -> Any:  # noqa: ANN401 -- the user's function
    """Import the function that `python:module:function` names; ImportError says what is missing."""
    module_name, _, function_name = spec.removeprefix(PREFIX).partition(":")
    module = importlib.import_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ImportError(f"{spec}: module {module_name} has no function {function_name!r}")
    return function
