"""`rubric`: what the rubric of an environment says of a completion (package `verifiers`).

    score = sum_i w_i r_i / sum_i max(w_i, 0), cut to [0, 1]

Its functions r_i may be `async def`. One that raises is an error here; the package counts it as 0.
A completion is correct from a score of `correct_from` on.
"""

import importlib
import inspect
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from functools import lru_cache, wraps
from math import isfinite
from typing import Any

from rloop.errors import TaskError
from rloop.types import Problem, Verdict

ROUNDING = 1e-6
"""Sums of weights come out a little below 1."""
_failures: ContextVar[list[Exception]] = ContextVar("failures")


class Environment:
    """A loaded environment with one turn."""

    def __init__(self, name: str, params: Mapping[str, Any]) -> None:
        """Load it; TaskError for one that rloop cannot use."""
        package = _package(name)
        with _own_signals():
            self.theirs: Any = package.load_environment(name, **params)
        self._rubrics = list(_leaves(self.theirs.rubric))
        weights = [weight for rubric in self._rubrics for weight in rubric.weights]
        self._total: float = sum(weight for weight in weights if weight > 0)
        _check(name, self.theirs, package, self._total)
        for rubric in self._rubrics:
            rubric.funcs = [_watched(function) for function in rubric.funcs]

    async def score(self, row: Mapping[str, Any], text: str) -> float:
        """Return the score of a completion of a row; raises what a reward function raised."""
        from verifiers.clients import Client
        from verifiers.utils.message_utils import normalize_messages

        # No model is asked, so the client needs none of its methods.
        methods = dict.fromkeys(Client.__abstractmethods__)
        client: Any = object.__new__(type("NoClient", (Client,), methods))
        state = await self.theirs.init_state(deepcopy(dict(row)), client, "policy")
        state = await self.theirs.setup_state(state) or state
        completion = normalize_messages([{"role": "assistant", "content": text}])
        state["completion"] = completion
        state["trajectory"] = [{"prompt": state["prompt"], "completion": completion}]
        state["is_completed"] = True
        failures: list[Exception] = []
        _failures.set(failures)
        await self.theirs.rubric.score_rollout(state)
        await self.theirs.rubric.cleanup(state)
        if failures:
            raise failures[0]
        score = float(state["reward"]) / self._total
        if not isfinite(score):
            raise ValueError(f"the rubric gave a reward of {state['reward']}")
        return min(1.0, max(0.0, score))


@lru_cache(maxsize=16)
def load_environment(name: str, params: str) -> Environment:
    """Return the environment for parameters written as JSON, loaded once."""
    return Environment(name, json.loads(params))


def prepare(problem: Problem) -> None:
    """Load the problem's environment."""
    _environment(problem)


async def judge_async(problem: Problem, text: str) -> Verdict:
    """Score a completion beside others in the running loop."""
    score = await _environment(problem).score(problem.metadata["row"], text)
    is_correct = score >= problem.metadata["correct_from"] - ROUNDING
    return Verdict(kind="correct" if is_correct else "wrong", score=score)


def _environment(problem: Problem) -> Environment:
    metadata = problem.metadata
    return load_environment(metadata["dataset"], json.dumps(metadata["params"], sort_keys=True))


def _package(name: str) -> Any:  # noqa: ANN401 (no types)
    # What an environment logs while it loads comes twice, and what its functions raise is kept.
    os.environ.setdefault("VF_LOG_LEVEL", "CRITICAL")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        package: Any = importlib.import_module("verifiers")
    except ImportError as error:
        raise TaskError(
            f"verifiers:{name} needs the package verifiers: pip install 'rloop-rl[verifiers]'"
        ) from error
    if not hasattr(package, "SingleTurnEnv"):
        version = getattr(package, "__version__", "something else")
        raise TaskError(
            f"verifiers:{name} needs environments as verifiers had them before 0.4, and {version} "
            "is installed: pip install 'rloop-rl[verifiers]'"
        )
    return package


def _check(name: str, environment: Any, package: Any, total: float) -> None:  # noqa: ANN401
    """Refuse an environment whose rewards one completion alone does not decide."""
    odd = ""
    if not isinstance(environment, package.SingleTurnEnv):
        odd = f"is a {type(environment).__name__}, which may take several turns"
    elif environment.tool_defs:
        odd = "gives the model tools"
    elif environment.rubric.has_group_rewards:
        odd = "rewards completions by comparing them with others"
    elif total <= 0:
        odd = "has a rubric without a positive weight"
    if odd:
        raise TaskError(
            f"verifiers:{name} {odd}; rloop takes environments of one turn (SingleTurnEnv) whose "
            "rubric looks at one completion: choose such a one"
        )


def _leaves(rubric: Any) -> Iterator[Any]:  # noqa: ANN401 (no types)
    """Yield the rubrics of a group, at any depth."""
    for inner in getattr(rubric, "rubrics", ()):
        yield from _leaves(inner)
    if not hasattr(rubric, "rubrics"):
        yield rubric


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function; what it raises is kept, because the package would only log it."""

    @wraps(function)
    async def watched(*given: Any, **named: Any) -> Any:  # noqa: ANN401 (theirs)
        try:
            result = function(*given, **named)
            return await result if inspect.isawaitable(result) else result
        except Exception as error:
            _failures.get().append(error)
            raise

    return watched


@contextmanager
def _own_signals() -> Iterator[None]:
    """Undo what an environment does to Ctrl-C and SIGTERM when it is made."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
