"""The judges: rloop's `math` and what other tools ship, each called as its users do.

    python benchmarks/verifiers/peers.py NAME < pairs.jsonl

writes a JSON line for each pair: `correct` (true, false, or null where the judge raised or gave no
verdict), `ms` of processor time, and `error`. `compare.py` starts it, one process for each judge.
"""

import importlib.metadata
import json
import logging
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Judge = Callable[[str, str, str], bool | None]  # (reference, completion, question)


def rloop_math() -> Judge:
    """rloop's `math`."""
    from rloop.tasks.verifiers import echo, formula, math, numeric, reading
    from rloop.types import Problem

    caches = [
        value
        for module in (echo, formula, math, numeric, reading)
        for value in vars(module).values()
        if hasattr(value, "cache_clear")
    ]

    def judge(reference: str, completion: str, question: str) -> bool | None:
        problem = Problem(
            problem_id="pair", task="pairs", question=question or "?", answer=reference,
            verifier="math",
        )  # fmt: skip
        for cache in caches:  # else a second look at the same pair would cost nothing
            cache.cache_clear()
        verdict = math.judge(problem, completion)
        return None if verdict.kind == "error" else verdict.kind == "correct"

    return judge


def math_verify() -> Judge:
    """math-verify with its defaults, the reference in a box."""
    from math_verify import parse, verify

    return lambda reference, completion, _: verify(
        parse(rf"\boxed{{{reference}}}"), parse(completion)
    )


def trl() -> Judge:
    """TRL's `accuracy_reward`; references in dollar signs, as in TRL's own data sets."""
    from trl.rewards import accuracy_reward

    def judge(reference: str, completion: str, _: str) -> bool | None:
        messages = [[{"role": "assistant", "content": completion}]]
        (reward,) = accuracy_reward(messages, [f"${reference}$"])
        return None if reward is None else reward == 1.0

    return judge


def verifiers() -> Judge:
    """Prime Intellect's `verifiers`: the successor of its MathRubric."""
    from verifiers.v1.utils.score import verify_boxed_math_answer

    return lambda reference, completion, _: verify_boxed_math_answer(completion, reference) == 1.0


def lighteval() -> Judge:
    """lighteval's metric of MATH-500 and AIME, the reference as its MATH-500 task writes it."""
    from lighteval.metrics.metrics import Metrics
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    metric = Metrics.pass_at_k_math.value.sample_level_fn.compute_score
    return lambda reference, completion, question: (
        metric(
            Doc(query=question, choices=[rf"ANSWER: $\boxed{{{reference}}}$"], gold_index=0),
            ModelResponse(text=[completion]),
        )
        == 1.0
    )


def lm_eval_hendrycks() -> Judge:
    """lm-eval's `hendrycks_math`: its `is_equiv` on what its own function finds in the last box."""
    from lm_eval.tasks.hendrycks_math import utils

    def judge(reference: str, completion: str, _: str) -> bool:
        box = utils.last_boxed_only_string(completion)
        return bool(utils.is_equiv(utils.remove_boxed(box) if box else completion, reference))

    return judge


def lm_eval_minerva() -> Judge:
    """lm-eval's `minerva_math`: its normalisation and `is_equiv`, on a box or its sentence."""
    from lm_eval.tasks.minerva_math import utils

    def judge(reference: str, completion: str, _: str) -> bool:
        box = utils.last_boxed_only_string(completion)
        found = utils.remove_boxed(box) if box else utils.get_unnormalized_answer(completion)
        answer = utils.normalize_final_answer(found)
        return bool(utils.is_equiv(answer, utils.normalize_final_answer(reference)))

    return judge


def verl_dapo() -> Judge:
    """verl's `math_dapo`, the reward of its DAPO recipe."""
    from verl.utils.reward_score import math_dapo

    return lambda reference, completion, _: bool(
        math_dapo.compute_score(completion, reference)["acc"]
    )


def verl_prime() -> Judge:
    """verl's `prime_math`, the reward of its PRIME recipe."""
    from verl.utils.reward_score import prime_math

    return lambda reference, completion, _: bool(prime_math.compute_score(completion, reference)[0])


def verl_math() -> Judge:
    """verl's `math_reward`, its default for MATH."""
    from verl.utils.reward_score import math_reward

    return lambda reference, completion, _: math_reward.compute_score(completion, reference) == 1.0


# name: (what it is called in the table, packages whose versions are noted, how it is loaded)
PEERS: dict[str, tuple[str, tuple[str, ...], Callable[[], Judge]]] = {
    "rloop": ("rloop `math`", ("math-verify",), rloop_math),
    "math_verify": ("math-verify, defaults", ("math-verify",), math_verify),
    "trl": ("TRL `accuracy_reward`", ("trl", "math-verify"), trl),
    "verifiers": ("verifiers `verify_boxed_math_answer`", ("verifiers", "math-verify"), verifiers),
    "lighteval": ("lighteval `pass_at_k_math`", ("lighteval",), lighteval),
    "lm_eval_hendrycks": ("lm-eval `hendrycks_math`", ("lm_eval",), lm_eval_hendrycks),
    "lm_eval_minerva": ("lm-eval `minerva_math`", ("lm_eval",), lm_eval_minerva),
    "verl_dapo": ("verl `math_dapo`", ("verl",), verl_dapo),
    "verl_prime": ("verl `prime_math`", ("verl",), verl_prime),
    "verl_math": ("verl `math_reward`", ("verl",), verl_math),
}


def versions(name: str) -> dict[str, str]:
    """Return the versions of the packages that a judge is made of."""
    return {package: importlib.metadata.version(package) for package in PEERS[name][1]}


def main() -> None:
    """Judge the pairs of standard input; the first line out names the versions."""
    name = sys.argv[1]
    logging.disable(logging.CRITICAL)
    # Some judges print; the lines of this protocol must stay alone.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    judge = PEERS[name][2]()
    out.write(json.dumps({"versions": versions(name)}) + "\n")
    for line in sys.stdin:
        out.write(json.dumps(_verdict(judge, json.loads(line))) + "\n")


def _verdict(judge: Judge, pair: dict[str, Any]) -> dict[str, Any]:
    start_s, begin_s = _processor_s(), time.perf_counter()
    error = None
    try:
        correct = judge(pair["answer"], pair["completion"], pair.get("problem", ""))
    except BaseException:  # noqa: BLE001 (foreign code; some raises its own BaseException)
        correct, error = None, traceback.format_exc(limit=-1).strip().splitlines()[-1]
    # Under a timer of processor time (rloop's) some systems count in steps of milliseconds.
    seconds = (_processor_s() - start_s) or (time.perf_counter() - begin_s)
    return {"correct": correct, "ms": seconds * 1000, "error": error}


def _processor_s() -> float:
    """Return the processor time so far, of processes that a judge starts too."""
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + of_children.ru_utime + of_children.ru_stime


if __name__ == "__main__":
    main()
