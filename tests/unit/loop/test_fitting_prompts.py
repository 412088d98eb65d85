"""Problems whose prompts fit, and the policy's context that prompt and completion share."""

from collections.abc import Sequence

import pytest
from doubles_policies import make_problem
from doubles_runs import toy_recipe

from rloop.errors import ConfigError, TaskError
from rloop.loop.problems import RunProblems
from rloop.types import Problem, PromptReport

SHORT, LONG, HELD_OUT = make_problem(3), make_problem(10**8), make_problem(50)
PROBLEMS = RunProblems(
    train=(SHORT, LONG), evaluate={"held": (HELD_OUT,)}, coldstart=(), notes=("read",)
)


def fitting(folder, *, limit=100, context=None, **limits):
    """Split the problems by the length of their question: 4, 12 and 5 tokens."""
    sections = {name: {"sampling": {"max_completion_tokens": n}} for name, n in limits.items()}
    data = toy_recipe(folder).model_dump()
    for name, section in sections.items():
        data[name]["sampling"] |= section["sampling"]

    def fit(problems: Sequence[Problem]) -> PromptReport:
        return PromptReport.of(
            problems,
            [len(problem.question) for problem in problems],
            limit,
            context=context,
            first=f"<s>{problems[0].question}",
            warnings=["one", "two"],
        )

    return PROBLEMS.fitting(fit, toy_recipe(folder).model_validate(data))


def test_what_is_said_of_prompts_is_said_once(tmp_path):
    found = fitting(tmp_path)
    assert (found.train, found.evaluate) == (PROBLEMS.train, PROBLEMS.evaluate)
    assert found.first_prompt == "<s>3+1="
    assert found.warnings == ("one", "two")
    assert found.notes == ("read",)


def test_longer_prompts_are_left_out_and_counted(tmp_path):
    found = fitting(tmp_path, limit=5)
    assert found.train == (SHORT,)
    assert "1 of 2 problems of tasks.train left out" in found.notes[1]
    with pytest.raises(TaskError, match=r"tasks\.evaluate \(held\) is left.*prompt\.max_tokens=5"):
        fitting(tmp_path, limit=4)


def test_exploration_and_evaluation_are_each_held_against_the_context(tmp_path):
    # 12 + 20 = 32 in exploration, 5 + 27 = 32 in evaluation
    assert fitting(tmp_path, context=32, explore=20, evaluate=27)
    with pytest.raises(ConfigError, match=r"12 tokens, and with explore.*=21 that is 33.*the 32"):
        fitting(tmp_path, context=32, explore=21, evaluate=27)
    with pytest.raises(ConfigError, match=r"5 tokens, and with evaluate.*=28 that is 33.*the 32"):
        fitting(tmp_path, context=32, explore=20, evaluate=28)
    # without the longest, which is left out: 4 + 21 = 25
    assert fitting(tmp_path, context=32, limit=11, explore=21, evaluate=27)
