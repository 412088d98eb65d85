"""Which problems of a task are taken, and which are held out where no evaluation task is named."""

from collections.abc import Sequence

from rloop.errors import TaskError
from rloop.types import Problem, stable_hash

HELD_OUT_FRAC, MIN_HELD_OUT, MAX_HELD_OUT = 0.1, 20, 256
"""What is held out of the training tasks where a recipe names no evaluation task."""


def choose(problems: list[Problem], size: int | None, seed: int) -> list[Problem]:
    """Return `size` problems chosen by a hash of seed and id, in the order of the source."""
    if size is None or size >= len(problems):
        return problems
    ranked = sorted(problems, key=lambda problem: stable_hash(seed, problem.problem_id))
    chosen = {problem.problem_id for problem in ranked[:size]}
    return [problem for problem in problems if problem.problem_id in chosen]


def hold_out(problems: Sequence[Problem], seed: int) -> dict[str, tuple[Problem, ...]]:
    """Return by task the part of training problems that is held out, chosen by a seed.

    Of a small task the part is larger, as few problems show no difference. Example: 30 of a task's
    300 problems, 20 of 120, 13 of 40, 1 of 3; TaskError where no task has two.
    """
    tasks: dict[str, list[Problem]] = {}
    for problem in problems:
        tasks.setdefault(problem.task, []).append(problem)
    most = max(1, MAX_HELD_OUT // len(tasks))
    found = {
        name: tuple(choose(own, min(most, _num_held_out(len(own))), seed))
        for name, own in tasks.items()
        if len(own) > 1
    }
    if not found:
        raise TaskError(
            "tasks.evaluate names no task, and tasks.train has too few problems to hold out a part "
            "of them. Name one."
        )
    return found


def _num_held_out(num_problems: int) -> int:
    wanted = max(MIN_HELD_OUT, round(HELD_OUT_FRAC * num_problems))
    return max(1, min(wanted, num_problems // 3))
