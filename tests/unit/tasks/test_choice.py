import pytest

from rloop.tasks.verifiers import choice
from rloop.types import Problem


def judge(text):
    asked = Problem(problem_id="t/0", task="t", question="?", answer="B", verifier="choice")
    return choice.judge(asked, text).kind


@pytest.mark.parametrize(
    "text",
    [
        "B", "b", "(B)", "B) 5", "B 12", "B, 12", "Ans: B", "Correct option: B", "So B.",
        "Thus, B.", "Hence (B).", "It's B.", "It is B.", "So, B is the answer.", "The answer is B!",
        "The answer is B = 12.", "B because A is too small", "B is the best answer.",
        "B\n\nExplanation: 5 + 7 = 12.", "B. 12\n\nExplanation: A is too small.",
        r"\boxed{\text{B}}", "<answer>b</answer>",
    ],
)  # fmt: skip
def test_a_letter_may_be_named_in_many_ways(text):
    assert judge(text) == "correct"


@pytest.mark.parametrize(
    "text",
    [
        "~B", "not B", "B or C", "B is correct; so is C.", "B is correct and A.", "B as A",
        "B because A is also right", "B = 12", "B 12 or 13", "So if B", "Is it B?", "C",
        "B\n\nExplanation: C is correct.", "B\n\nExplanation: wait, I was wrong.",
        "<answer>A</answer> or <answer>B</answer>", "<think>B",
    ],
)  # fmt: skip
def test_what_names_no_letter_or_another_one_is_wrong(text):
    assert judge(text) == "wrong"
