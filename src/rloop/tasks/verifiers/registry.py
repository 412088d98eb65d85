"""Which verifiers there are, by name; each is imported only when it is asked for."""

import difflib
import importlib
from collections.abc import Collection
from dataclasses import replace
from types import ModuleType

from rloop.errors import ConfigError
from rloop.tasks.verifiers import format as formats
from rloop.tasks.verifiers.python import PREFIX, check_spec, is_async
from rloop.types import Problem, Verdict

VERSIONS = {
    "exact": "exact/4",
    "choice": "choice/1",
    "math": "math/4",
    "numeric": "numeric/5",
    "reasoning_gym": "reasoning_gym/3",
    "rubric": "rubric/1",
}
OF_SOURCES = {"reasoning_gym": "reasoning_gym", "rubric": "verifiers"}
"""Verifiers that judge the problems of one kind of source only."""


def check_verifier_name(name: str, known: Collection[str] = VERSIONS.keys()) -> None:
    """Raise a ConfigError that names the choices unless there is such a verifier."""
    if name.startswith(PREFIX):
        check_spec(name)
    elif name not in known:
        if name.startswith("["):
            raise ConfigError(
                f"verifier must be one name, got {name!r}: one verifier decides what is correct. "
                "Put other functions into `rewards`, each with a weight."
            )
        near = difflib.get_close_matches(name, known, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        choices = ", ".join(sorted(known))
        raise ConfigError(
            f"verifier {name!r} is unknown.{guess} Choose {choices} or "
            "python:package.module:function."
        )


def version_of(verifier: str) -> str:
    """Return name and version of a verifier; the user's own has its name only."""
    return VERSIONS.get(verifier, verifier)


def load_key(problem: Problem) -> str:
    """Return what must be loaded once before problems like this one can be judged."""
    dataset = problem.metadata.get("dataset") if problem.verifier in OF_SOURCES else ""
    params = problem.metadata.get("params") if dataset else ""
    return f"{problem.verifier} {dataset} {params}"


def load(problem: Problem) -> bool:
    """Import and warm up all that judging this problem needs; this may take seconds.

    Returns whether its verifier is asynchronous.
    """
    module = _module(problem.verifier)
    if problem.verifier in OF_SOURCES:
        module.prepare(problem)
    elif problem.verifier.startswith(PREFIX):
        module.load_function(problem.verifier)
    elif problem.verifier in VERSIONS:
        module.judge(problem, problem.answer)
    if problem.verifier.startswith(PREFIX):
        return is_async(problem.verifier)
    return hasattr(module, "judge_async")


def judge(problem: Problem, text: str) -> Verdict:
    """Judge one completion in this process and thread; raises what the verifier raises."""
    verdict: Verdict = _module(problem.verifier).judge(problem, text)
    return verdict


async def judge_async(problem: Problem, text: str) -> Verdict:
    """Do the same with an asynchronous verifier, beside others in the running loop."""
    verdict: Verdict = await _module(problem.verifier).judge_async(problem, text)
    return verdict


def explain(problem: Problem, text: str) -> tuple[Verdict, list[tuple[str, str]]]:
    """Judge one completion in this process and return the steps, for verifiers that show them."""
    module = _module(problem.verifier)
    if hasattr(module, "explain"):
        verdict, steps = module.explain(problem, text)
    else:
        verdict, steps = module.judge(problem, text), []
    version = verdict.verifier_version or version_of(problem.verifier)
    return replace(verdict, verifier_version=version), steps


def reference_text(problem: Problem) -> str:
    r"""Return the completion a problem's own reference stands for: boxed for `math`, else bare.

    Problems of an environment say themselves in which form its rubric takes an answer.
    """
    if problem.verifier == "rubric":
        form: str = problem.metadata["form"]
        return form.replace("{answer}", problem.answer)
    return f"\\boxed{{{problem.answer}}}" if problem.verifier == "math" else problem.answer


def _module(verifier: str) -> ModuleType:
    if not verifier.startswith(formats.PREFIX):
        check_verifier_name(verifier)
    name = verifier.partition(":")[0]
    return importlib.import_module(f"rloop.tasks.verifiers.{name}")
