"""The small proving ground: four digits and a target, write an expression that hits it.

    python proof/ground.py DIR            writes problems: solved, train, held-out, shifted (.jsonl)
    python proof/ground.py DIR --reach    the ground with reach: the base learns from half as many
                                          problems, of which 97 % have three digits


A problem is `3 5 7 9 = 42`; right is any expression of + - * and parentheses that uses each digit
once and has that value, so most problems have many right answers, and a policy can be right in more
or fewer ways. The base learns targets from 0 to 149; those to train on and held out reach 99,
`shifted` has the others: what RL never sees and the base can do. With `--reach` the base can do
little of what it is asked, since it has hardly seen four digits, and RL has to find it. No two
files share a problem, in whatever order its digits stand.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rloop.tasks.verifiers.expressions import read_arithmetic
from rloop.types import Problem

FILES = {
    "shifted": (150, range(100, 150)),
    "held-out": (300, range(100)),
    "train": (256, range(100)),
    "solved": (60_000, range(150)),
}
"""Of each file: its number of problems, and the targets they have."""
REACH_SOLVED, REACH_THREE = 30_000, 0.97
"""Solved problems of the ground with reach, and the part of them that has three digits."""
MAX_CHARS = 40
Row = dict[str, str]


def is_right(problem: Problem, completion_text: str) -> bool:
    """Whether the completion is an expression of the problem's digits that hits its target."""
    text = completion_text.strip()
    if "/" in text or len(text) > MAX_CHARS:
        return False
    digits, _, target = problem.question.partition("=")
    try:
        value, numbers = read_arithmetic(text)
    except ValueError:
        return False
    return value == int(target) and numbers == Counter(map(int, digits.split()))


def random_expression(digits: list[int], rng: random.Random) -> tuple[str, int, int]:
    """Return a random expression of the digits in any order: text, value and binding strength."""
    if len(digits) == 1:
        return str(digits[0]), digits[0], 3
    cut = rng.randrange(1, len(digits))
    (left, a, strength_a), (right, b, strength_b) = (
        random_expression(part, rng) for part in (digits[:cut], digits[cut:])
    )
    operator = rng.choice("+-*")
    strength = 2 if operator == "*" else 1
    if strength_a < strength:
        left = f"({left})"
    if strength_b < strength or (operator == "-" and strength_b == 1):
        right = f"({right})"
    value = {"+": a + b, "-": a - b, "*": a * b}[operator]
    return f"{left}{operator}{right}", value, strength


def solved_problems(
    targets: range, rng: random.Random, *, three_frac: float = 0.0
) -> Iterator[Row]:
    """Yield problems with one of their solutions, without end; the same problem may come again.

    They have four digits, or three in a fraction of them.
    """
    while True:
        has_three = three_frac > 0 and rng.random() < three_frac
        digits = [rng.randint(1, 9) for _ in range(3 if has_three else 4)]
        solution, value, _ = random_expression(digits, rng)
        if value in targets:
            shown = " ".join(map(str, rng.sample(digits, len(digits))))
            yield {"problem": f"{shown} = {value}", "answer": solution, "solution": solution}


def key(row: Row) -> str:
    """Return what two problems share that differ in the order of their digits alone."""
    digits, _, target = row["problem"].partition(" = ")
    return f"{' '.join(sorted(digits.split()))} = {target}"


def main(folder: Path, seed: int = 0, *, has_reach: bool = False) -> None:
    """Write the four files; the same seed gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for name, (size, targets) in FILES.items():
        rng = random.Random(f"{seed} {name}")
        mine: set[str] = set()
        rows: list[Row] = []
        is_base = has_reach and name == "solved"
        size = REACH_SOLVED if is_base else size
        for row in solved_problems(targets, rng, three_frac=REACH_THREE if is_base else 0.0):
            # The base learns from many solutions of a problem, its digits in many orders.
            if key(row) in seen or (name != "solved" and key(row) in mine):
                continue
            mine.add(key(row))
            rows.append({**row, "id": str(len(rows))})
            if len(rows) == size:
                break
        seen |= mine
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), has_reach="--reach" in sys.argv[2:])
