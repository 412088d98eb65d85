"""Verifiers that misbehave in one way each; they run in worker processes."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import numpy as np

from rloop.types import Problem, Verdict


def says_yes(problem: Problem, text: str) -> bool:
    return text == "yes"


def gives_verdict(problem: Problem, text: str) -> Verdict:
    return Verdict(kind="correct", answer=text, reason="as asked", verifier_version="mine/3")


def sleeps_on_hang(problem: Problem, text: str) -> bool:
    if text == "hang":
        sys.stdout.write("this line must not reach the parent's protocol\n")
        time.sleep(600)
    return True


def spins_on_hang(problem: Problem, text: str) -> bool:
    while text == "hang":
        pass
    return True


def raises(problem: Problem, text: str) -> bool:
    raise KeyError(text)


def dies_on_die(problem: Problem, text: str) -> bool:
    if text == "die":
        os._exit(7)
    return True


def returns_nonsense(problem: Problem, text: str) -> str:
    return "5"


RETURNED: dict[str, object] = {
    "bool": True,
    "numpy bool": np.bool_(0),
    "numpy float": np.float32(0.25),
    "numpy array of one": np.array(0.5),
    "half": 0.5,
    "one": 1,
    "full": 1.0,
    "score": Verdict(kind="wrong", score=0.75, reason="the unit is missing"),
    "passed": Verdict(kind="correct", score=np.float64(0.8)),
    "nan": float("nan"),
    "above": 1.5,
    "below": -0.1,
    "nothing": None,
    "text": "5",
    "array": np.array([0.5, 0.5]),
    "score above": Verdict(kind="wrong", score=4),
    "score of text": Verdict(kind="wrong", score="high"),  # type: ignore[arg-type]  # refused
}


def returns_as_asked(problem: Problem, text: str) -> object:
    return RETURNED[text]


async def waits(problem: Problem, text: str) -> float:
    await asyncio.sleep(float(problem.answer))
    return 0.5


async def misbehaves_async(problem: Problem, text: str) -> bool:
    if text == "block":
        time.sleep(600)
    if text == "die":
        await asyncio.sleep(0.05)
        os._exit(7)
    while text == "stay":
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
    if text == "raise":
        raise KeyError(text)
    await asyncio.sleep(600 if text == "hang" else 0.2)
    return True


async def tells_process_async(problem: Problem, text: str) -> Verdict:
    return Verdict(kind="correct", answer=str(os.getpid()))


class AsyncCallable:
    async def __call__(self, problem: Problem, text: str) -> bool:
        return text == "yes"


called_async = AsyncCallable()


def hands_on_to_async(problem: Problem, text: str) -> Awaitable[bool]:
    return called_async(problem, text)


def returns_malformed_verdict(problem: Problem, text: str) -> Verdict:
    return Verdict(kind="maybe")  # type: ignore[arg-type]  # what it must be refused for


def tells_process(problem: Problem, text: str) -> Verdict:
    if problem.answer != "-":
        Path(problem.answer).write_text(str(os.getpid()))
    if text == "hang":
        time.sleep(600)
    return Verdict(kind="correct", answer=str(os.getpid()))


def knows_no_torch(problem: Problem, text: str) -> bool:
    return not {"torch", "transformers"} & set(sys.modules)


def eats_memory(problem: Problem, text: str) -> bool:
    return len(bytearray(1 << 40)) == 0


def _is_tried_first(problem: Problem, text: str) -> bool:
    """Whether the check at the start tries such a text: the question, nothing, or a reference."""
    return text in ("", problem.question) or text.strip("- ").isdigit()


def raises_on_others(problem: Problem, text: str) -> bool:
    if not _is_tried_first(problem, text):
        raise ValueError("cannot read that")
    return text.strip() == problem.answer


def hangs_on_others(problem: Problem, text: str) -> bool:
    if not _is_tried_first(problem, text):
        time.sleep(600)
    return text.strip() == problem.answer


def nonsense_on_others(problem: Problem, text: str) -> bool | str:
    return text.strip() == problem.answer if _is_tried_first(problem, text) else "nope"


def reads_integers_only(problem: Problem, text: str) -> bool:
    return int(text) == int(problem.answer)


def raises_in_two_lines(problem: Problem, text: str) -> bool:
    raise ValueError("cannot read that\nnor this.")


def accepts_anything_short(problem: Problem, text: str) -> bool:
    return len(text) < 100
