"""The proving ground's problems and its verifier."""

import json
import random
import runpy
from itertools import islice
from pathlib import Path

import pytest

from rloop.recipe.load import load_recipe
from rloop.types import Problem

PROOF = Path(__file__).parents[2] / "proof"
GROUND = runpy.run_path(str(PROOF / "ground.py"))


def is_right(text, question="3 5 7 9 = 42"):
    problem = Problem(problem_id="g/0", task="g", question=question, answer="", verifier="exact")
    return GROUND["is_right"](problem, text)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("3*5+9*7", False),  # 15 + 63 = 78
        ("(9-3)*7*5", False),  # 210
        ("(9+5)*3*7", False),  # 294
        ("7*(9-3)", False),  # 42, but 5 is left
        ("9*5-3", False),  # 42, but 7 is left
        ("(7+9-5)*3", False),  # 33
        ("5*7+9-3", False),  # 41
        (" 3*9+5*7 ", False),  # 62
        ("7*5+9-3+1", False),  # a digit too many
        ("42", False),
        ("", False),
        ("7*5+3+9/9", False),  # no division
        ("9**3", False),
        ("__import__('os')", False),
        ("3*5*7*9" + " " * 50, False),
    ],
)
def test_what_is_not_right(text, right):
    assert is_right(text) is right


@pytest.mark.parametrize("text", ["5*9-7-3", "5*9-3-7", " (9*5-7)-3", "9*5-(3+7)"])
def test_many_ways_are_right(text):
    # 45 - 10 = 35
    assert is_right(text, "3 5 7 9 = 35")


def test_every_file_is_solvable_and_shares_no_problem_with_another(tmp_path):
    GROUND["main"].__globals__["FILES"] |= {"solved": (2000, range(150))}
    GROUND["main"](tmp_path)
    keys = {}
    for path in tmp_path.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert all(is_right(row["solution"], row["problem"]) for row in rows)
        keys[path.stem] = {GROUND["key"](row) for row in rows}
    assert {name: len(found) for name, found in keys.items() if name != "solved"} == {
        "held-out": 300, "train": 256, "shifted": 150,
    }  # fmt: skip
    names = sorted(keys)
    assert not any(keys[a] & keys[b] for a in names for b in names if a < b)


def test_the_same_seed_gives_the_same_problems():
    first, again = (
        list(islice(GROUND["solved_problems"](range(100), random.Random(3)), 20)) for _ in range(2)
    )
    assert first == again


def test_the_recipe_is_valid():
    assert load_recipe(PROOF / "base.yaml").coldstart is not None
