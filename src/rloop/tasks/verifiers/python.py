"""`python:package.module:function`: the user's own verifier or reward.

The function takes (problem, completion text) and returns True or False, a score from 0 to 1, or a
`Verdict`; anything else is an error verdict that says so. It may be `async def`. It runs in a
worker process that can be killed.
"""

import asyncio
import importlib
import inspect
import os
import re
import sysconfig
import traceback
from collections.abc import Awaitable
from dataclasses import replace
from functools import lru_cache
from math import nan
from numbers import Real
from pathlib import Path
from typing import Any

import rloop
from rloop.errors import ConfigError
from rloop.types import Problem, Verdict

PREFIX = "python:"
WANTED = "it must return True or False, a score from 0 to 1, or a Verdict"
MAX_SHOWN = 160
"""Characters of a completion or a reference in an error."""

_SPEC = re.compile(r"python:[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_FOREIGN = tuple(
    str(path)
    for path in (
        Path(rloop.__file__).parent,
        *(sysconfig.get_paths()[k] for k in ("stdlib", "purelib", "platlib")),
    )
)
"""Folders of code that is not the user's."""


def check_spec(spec: str) -> None:
    """Raise a ConfigError that shows the right form unless `spec` names module and function."""
    module, _, function = spec.removeprefix(PREFIX).partition(":")
    is_file = module.endswith(".py") or "/" in module
    if _SPEC.fullmatch(spec) and not is_file:
        return
    dotted = module.removesuffix(".py").strip("./").replace("/", ".")
    remedy = f"{PREFIX}{dotted or 'package.module'}:{function or 'function'}"
    kind = "a file, not a module" if is_file else "no module and function"
    raise ConfigError(
        f"{spec!r} names {kind}: write {remedy}. The module is looked for where Python looks and "
        "in the current directory."
    )


@lru_cache(maxsize=64)
def load_function(spec: str) -> Any:  # noqa: ANN401 -- the user's function
    """Import the function that `python:module:function` names; ImportError says what is missing."""
    module_name, _, function_name = spec.removeprefix(PREFIX).partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise ImportError(
            f"No module named {module_name!r} in {Path.cwd()} or where Python looks"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ImportError(f"module {module_name} has no function {function_name!r}")
    if not _takes_two(function):
        raise ImportError(
            f"{function_name}{inspect.signature(function)} must take two arguments, the problem "
            "and the text of the completion"
        )
    return function


def _takes_two(function: Any) -> bool:  # noqa: ANN401 -- the user's function
    """Whether it can be called with two arguments, as far as its signature can be read."""
    try:
        inspect.signature(function).bind(None, "")
    except ValueError:  # a function of C may have no signature
        return True
    except TypeError:
        return False
    return True


def is_async(spec: str) -> bool:
    """Whether the function is `async def`, so that many calls can wait at once."""
    function = load_function(spec)
    return any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))


def judge(problem: Problem, text: str) -> Verdict:
    """Call the user's function and check what it returns."""
    result = load_function(problem.verifier)(problem, text)
    if inspect.isawaitable(result):
        result = asyncio.run(_awaited(result))
    return _verdict(result, problem.verifier)


async def judge_async(problem: Problem, text: str) -> Verdict:
    """Do the same with an `async def` function, beside others in the running loop."""
    result = load_function(problem.verifier)(problem, text)
    return _verdict(await _awaited(result), problem.verifier)


async def _awaited(result: Awaitable[object]) -> object:
    return await result


def _verdict(result: object, spec: str) -> Verdict:
    """Return what the function's result means: a truth value, a score, or a verdict."""
    given, result = result, _plain(result)
    if isinstance(result, bool):
        return Verdict(kind="correct" if result else "wrong")
    if isinstance(result, Verdict):
        return _checked(result, spec)
    if not isinstance(result, Real):
        told = f"{given!r:.60} ({type(given).__name__})"
        return Verdict(kind="error", reason=f"{spec} returned {told}; {WANTED}")
    score = _score(result)
    if score is None:
        return Verdict(kind="error", reason=f"{spec} returned {given!r:.60}; {WANTED}")
    return Verdict.graded(score)


def _score(value: object) -> float | None:
    """Return a number in [0, 1] as a float; None for anything else, NaN too."""
    number = float(value) if isinstance(value, Real) else nan
    return number if 0.0 <= number <= 1.0 else None


def _plain(value: object) -> object:
    """Return the Python number in a scalar of numpy or torch (`np.bool_` is a bool)."""
    foreign: Any = value
    return foreign.item() if getattr(value, "shape", None) == () else value


def _checked(verdict: Verdict, spec: str) -> Verdict:
    is_sound = verdict.kind in ("correct", "wrong", "error")
    texts = (verdict.reason, verdict.verifier_version)
    is_sound = is_sound and all(isinstance(text, str) for text in texts)
    is_sound = is_sound and (verdict.answer is None or isinstance(verdict.answer, str))
    if is_sound and (verdict.score is None or verdict.kind == "error"):
        return replace(verdict, score=None)
    score = _score(_plain(verdict.score))
    if is_sound and score is not None:
        return replace(verdict, score=score)
    return Verdict(kind="error", reason=f"{spec} returned a malformed verdict: {verdict!r:.200}")


def explained(error: BaseException, problem: Problem, text: str) -> str:
    """Return where the user's code raised, and what it was asked: one line."""
    asked = f"for completion {_short(text)} and reference {_short(problem.answer)}"
    return f"{_place(error)}, {asked}"


def _place(error: BaseException) -> str:
    """Return file and line of the innermost frame that is the user's, else of the innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_FOREIGN)]
    frame = (own or frames)[-1]
    near = os.path.relpath(frame.filename)
    name = frame.filename if near.startswith(os.pardir) else near
    return f"in {name}, line {frame.lineno}"


def _short(text: str) -> str:
    """Return a text's beginning and end as a literal."""
    half = MAX_SHOWN // 2
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:half]} ... {text[-half:]}")
