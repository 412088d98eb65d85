"""What the second proving ground's base learns from: ASDiv's word problems with an equation each.

    python proof/words.py FILE      ASDiv from RLOOP_DATA, else from the hub

ASDiv gives answers, not ways. "Joan has 3 boxes of 12 eggs and breaks 4. How many are left?" with
32 becomes `3*12=36; 36-4=32`: the only way, up to the order of a sum or product, from the problem's
two or three numbers to its answer. Problems with no such way, or several, are left out.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from rloop.recipe.config import TaskConfig
from rloop.tasks.load import load_task

NUMBER = re.compile(r"(?<![\d.,])\d+(?![\d.,]*\d)")
LARGEST = 3


def ways(numbers: tuple[int, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (value, equations) of every way to use each number once, in whole positive numbers.

    Example: ways((12, 4)) yields (16, ("12+4=16",)), (8, ("12-4=8",)), (48, ...) and (3, ...).
    """
    if len(numbers) == 1:
        yield numbers[0], ()
        return
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i == j:
                continue
            rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
            steps = [("-", a - b)] if a > b else []
            steps += [("/", a // b)] if b > 1 and a % b == 0 else []
            steps += [("+", a + b), ("*", a * b)] if i < j else []
            for sign, value in steps:
                for result, others in ways((value, *rest)):
                    yield result, (f"{a}{sign}{b}={value}", *others)


def equations(problem: str, answer: str) -> str | None:
    """Return the one way from a problem's numbers to its answer; None without one, or with several.

    Example: equations("He pays 2 times $3.", "6") -> "2*3=6"
    """
    numbers = tuple(int(text) for text in NUMBER.findall(problem))
    if not 2 <= len(numbers) <= LARGEST or not answer.isdigit() or 0 in numbers:
        return None
    found = {way for value, way in ways(numbers) if value == int(answer)}
    return "; ".join(found.pop()) if len(found) == 1 else None


def main(file: Path) -> None:
    """Write problem, equations and answer as JSON lines."""
    rows = []
    for problem in load_task(TaskConfig(source="asdiv")).problems:
        answer = problem.answer.replace(",", "").removesuffix(".0")
        line = equations(problem.question, answer)
        if line is not None:
            row = {"id": problem.problem_id, "problem": problem.question, "solution": line}
            rows.append(row | {"answer": answer})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    sys.stdout.write(f"{file}: {len(rows)} problems\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
