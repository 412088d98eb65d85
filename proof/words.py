"""What the second proving ground's base learns from: GSM8K's short solutions as bare equations.

    python proof/words.py FILE      GSM8K from RLOOP_DATA, else from the hub

"Natalia sold 48/2 = 24 clips in May. Natalia sold 48+24 = 72 ..." becomes `48/2=24; 48+24=72`: of
the problems whose solution has at most three equations of whole numbers, all of them true and the
last one equal to the answer. A small model can learn to write that, and its completions are short.
"""

import json
import re
import sys
from pathlib import Path

from rloop.config import TaskConfig
from rloop.tasks.sources import load_task
from rloop.tasks.verifiers.expressions import read_arithmetic

EQUATION = re.compile(r"(\d[\d+\-*/(), $]*[\d)]) *= *\$?(\d[\d,]*)")
MAX_EQUATIONS = 3


def equations(solution: str, answer: str) -> str | None:
    """Return the equations of a solution in one line; None where they do not lead to the answer.

    Example: equations("He pays 2*$3 = $6.", "6") -> "2*3=6"
    """
    if re.search(r"\d\.\d", solution):
        return None
    found = [
        (re.sub(r"[$, ]", "", left), right.replace(",", ""))
        for left, right in EQUATION.findall(re.sub(r"<<.*?>>", "", solution))
    ]
    if not 0 < len(found) <= MAX_EQUATIONS or found[-1][1] != answer:
        return None
    for left, right in found:
        try:
            value, numbers = read_arithmetic(left)
        except ValueError:
            return None
        if value != int(right) or numbers.total() < 2:
            return None
    return "; ".join(f"{left}={right}" for left, right in found)


def main(file: Path) -> None:
    """Write problem, equations and answer as JSON lines."""
    rows = []
    for problem in load_task(TaskConfig(source="gsm8k", split="train")).problems:
        line = equations(problem.solution or "", problem.answer.replace(",", ""))
        if line is not None:
            row = {"id": problem.problem_id, "problem": problem.question, "solution": line}
            rows.append(row | {"answer": problem.answer})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    sys.stdout.write(f"{file}: {len(rows)} problems\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
