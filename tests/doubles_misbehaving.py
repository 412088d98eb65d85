"""Verifiers that misbehave in one way each; they run in worker processes."""

import os
import sys
import time
from pathlib import Path

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


def returns_nonsense(problem: Problem, text: str) -> int:
    return 1


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
