from contextlib import suppress
from dataclasses import replace

import pytest

from rloop.recipe.config import TaskConfig
from rloop.tasks.load import load_task
from rloop.tasks.verifiers import reasoning_gym as gym_verifier
from rloop.tasks.verifiers.gym_checkers import CHECKERS, ExecutionRefused, guarded
from rloop.types import Problem


def problem(dataset, answer, entry=None, params=None):
    return Problem(
        problem_id="t/0",
        task="t",
        question="?",
        answer=answer,
        verifier="reasoning_gym",
        metadata={"dataset": dataset, "params": params or {}, "entry": entry or {}},
    )


COUNTDOWN = {"numbers": [67, 50, 20, 82], "target": 119}
HALF = {"simplified_numerator": 1, "simplified_denominator": 2, "numerator": 4, "denominator": 8}
CANARIES = [
    # data set, reference, entry, completion, verdict, why
    ("chain_sum", "8", {}, "5 + 3 = 8.", "correct", "a plain sum"),
    ("chain_sum", "8", {}, "The sum of 5 and 3 is 8.", "correct", "a sentence"),
    ("chain_sum", "8", {}, "<answer>8</answer>", "correct", "tags"),
    ("chain_sum", "8", {}, r"\boxed{8} after 3 steps", "correct", "a box"),
    ("chain_sum", "8", {}, "8.00", "correct", "equal in another form"),
    ("chain_sum", "-128", {}, "That gives -128.", "correct", "a sign"),
    ("chain_sum", "1250", {}, "1,250", "correct", "thousands"),
    ("chain_sum", "8", {}, r"\boxed{5 \times 10^{8}}", "wrong", "its exponent"),
    ("chain_sum", "4500", {}, r"\boxed{4.5 \times 10^{3}}", "correct", "a power of ten"),
    ("chain_sum", "8", {}, "18", "wrong", "the reference is part of it"),
    ("chain_sum", "8", {}, "5 + 3 =", "wrong", "cut off"),
    ("chain_sum", "8", {}, "", "wrong", "empty"),
    ("chain_sum", "8", {}, "8 or 9", "wrong", "two answers: the last counts"),
    ("chain_sum", "8", {}, "What is 5 + 3 = ?", "wrong", "an echo of the prompt"),
    ("chain_sum", "8", {}, "(" * 100_000, "wrong", "100 kB of brackets"),
    ("countdown", "82+20+67-50", COUNTDOWN, "82 + 20 + 67 - 50", "correct", "the reference"),
    ("countdown", "82+20+67-50", COUNTDOWN, "67 - 50 + 82 + 20 = 119", "correct", "another way"),
    ("countdown", "82+20+67-50", COUNTDOWN, "82 + 20 + 67 + 50", "wrong", "another value"),
    ("countdown", "82+20+67-50", COUNTDOWN, "119", "wrong", "none of the numbers"),
    ("countdown", "82+20+67-50", COUNTDOWN, "__import__('os')._exit(3)", "wrong", "code"),
    ("countdown", "82+20+67-50", COUNTDOWN, "9**9**9**9", "wrong", "a power tower"),
    ("puzzle24", "4*8-6-2", {"numbers": [4, 8, 6, 2]}, "4 * (8 - 2)", "wrong", "6 is missing"),
    ("puzzle24", "4*8-6-2", {"numbers": [4, 8, 6, 2]}, "1*2*3*4", "wrong", "other numbers"),
    ("puzzle24", "4*8-6-2", {"numbers": [4, 8, 6, 2]}, "8*4-2-6", "correct", "another order"),
    ("countdown", "82+20+67-50", COUNTDOWN, "67 + 50 = 82+20+67-50 = 82*20", "wrong", "guesses"),
    ("countdown", "82+20+67-50", COUNTDOWN, "82+20+67-50 = 7", "wrong", "a false equation"),
    ("countdown", "82+20+67-50", COUNTDOWN, "119 = 119", "wrong", "no expression"),
    ("countdown", "82+20+67-50", COUNTDOWN, "119 = 82+20+67-50", "correct", "from right to left"),
    ("gsm_symbolic", "8", {}, "-8", "wrong", "theirs passes over the sign"),
    ("gsm_symbolic", "8", {}, "<answer>8 or 9</answer>", "wrong", "theirs takes the first"),
    ("gsm_symbolic", "8", {}, "<answer>9 or 8</answer>", "wrong", "two guesses"),
    ("chain_sum", "8", {}, "<answer>not 8</answer>", "wrong", "negated"),
    ("chain_sum", "8", {}, "<answer>8</answer>\nWait, that is wrong.", "wrong", "taken back"),
    ("chain_sum", "8", {}, "<think>\\boxed{8}</think>\nI do not know.", "wrong", "a thought"),
    ("chain_sum", "8", {}, "<think><answer>8</answer> but", "wrong", "a thought still open"),
    ("chain_sum", "8", {}, "<answer>5 million</answer>", "wrong", "a factor"),
    ("chain_sum", "8", {}, "The answer is:\n```\n8\n```", "correct", "one line in a block"),
    ("chain_sum", "8", {}, "8<|im_end|>", "correct", "an end token"),
    ("mahjong_puzzle", "Chi", {}, "Chi<|im_end|>", "correct", "an end token"),
    ("mahjong_puzzle", "Chi", {}, "```\nChi\n```", "correct", "one line in a block"),
    ("mahjong_puzzle", "Chi", {}, "<answer>\\boxed{Chi}</answer>", "correct", "a box in a tag"),
    (
        "mahjong_puzzle",
        "Chi",
        {},
        "The answer is Chi.\n\nI saw that at once.",
        "correct",
        "a reason",
    ),
    ("mahjong_puzzle", "Chi", {}, "The answer is Chi. Or Pon.", "wrong", "two answers"),
    (
        "mahjong_puzzle",
        "Chi",
        {},
        "<answer>Pon</answer> or <answer>Chi</answer>",
        "wrong",
        "two tags",
    ),
    ("mahjong_puzzle", "Chi", {}, "The answer is not Chi.", "wrong", "negated"),
    ("mahjong_puzzle", "Chi", {}, "I doubt that it is Chi.", "wrong", "a doubt"),
    ("mahjong_puzzle", "Chi", {}, "Say Pon, Kan or Chi", "wrong", "the question's words"),
    ("mahjong_puzzle", "Chi", {}, "The question whose answer is Chi", "wrong", "about a question"),
    ("emoji_mystery", "What's that?", {}, "The answer is: What's that?", "correct", "a question"),
    ("spell_backward", "nus", {}, "<answer>NUS</answer>", "correct", "case"),
    ("spell_backward", "nus", {}, "<answer>nus sun</answer>", "wrong", "theirs takes what follows"),
    ("letter_jumble", "the sun", {}, "The Sun.", "correct", "case"),
    ("letter_jumble", "the sun", {}, "the sun set", "wrong", "theirs takes what follows"),
    ("fraction_simplification", "1/2", HALF, r"$\frac{1}{2}$", "correct", "LaTeX"),
    ("fraction_simplification", "1/2", HALF, "<answer>1/2, 1/3</answer>", "wrong", "two fractions"),
    ("word_sorting", "a, b", {"sorted_words": ["a", "b"]}, "a, b", "correct", "as it is"),
    ("word_sorting", "a, b", {"sorted_words": ["a", "b"]}, "a, b, c", "wrong", "theirs takes more"),
    ("bitwise_arithmetic", "0x3d2d", {}, "The result is 0x3D2D.", "correct", "the last word"),
    ("number_sorting", "['1', '2', '3']", {}, "['1', '2', '4']", "wrong", "theirs is off by one"),
    ("number_sorting", "['1', '2', '3']", {}, "[1.0, 2, 3]", "correct", "numbers"),
    ("number_sorting", "['1', '2', '3']", {}, "[" * 100_000, "wrong", "100 kB of brackets"),
    ("game_of_life_halting", "False", {}, "It keeps going: True", "wrong", "theirs takes any text"),
    ("game_of_life_halting", "False", {}, "So it is false.", "correct", "case"),
    ("coin_flip", "1", {}, "12", "wrong", "theirs takes a longer number"),
    ("coin_flip", "0.00003", {}, "0", "wrong", "0 is not near 0.00003"),
    ("coin_flip", "0.5", {}, "50%", "correct", "a percentage"),
    ("coin_flip", "0.5", {}, "0.5%", "wrong", "another percentage"),
    ("coin_flip", "0.234375", {}, "15/64", "correct", "a fraction"),  # 15/64 = 0.234375
    ("binary_matrix", "0 1\n1 0", {}, "Here it is:\n```\n0 1\n1 0\n```", "correct", "a block"),
    ("binary_matrix", "0 1\n1 0", {}, "So:\n0 1\n1 0", "correct", "as many lines"),
    ("binary_matrix", "0 1\n1 0", {}, "Answer:\n0 1\n1 0\nHope this helps", "correct", "a phrase"),
    ("binary_matrix", "0 1\n1 0", {}, "```\n0 1\n1 0\n```\nThese are the rows", "correct", "text"),
    ("binary_matrix", "0 1\n1 0", {}, "```\n0 1\n1 0\n```\n1 1\n1 1", "wrong", "a later board"),
    (
        "binary_matrix",
        "0 1\n1 0",
        {},
        "Answer:\n0 1\n1 0\n```\n1 1\n1 1\n```",
        "wrong",
        "a later block",
    ),
    (
        "binary_matrix",
        "0 1\n1 0",
        {},
        "Answer:\n1 1\n1 1\n\n0 1\n1 0",
        "wrong",
        "the phrase counts",
    ),
    ("binary_matrix", "0 1\n1 0", {}, "[[0, 1], [1, 0]]", "wrong", "code is not run"),
    ("prime_factorization", "5 \u00d7 7 \u00d7 7", {}, "5 x seven", "wrong", "theirs raises"),
    (
        "prime_factorization",
        "5 \u00d7 7 \u00d7 7",
        {},
        "7 \u00d7 5 \u00d7 7",
        "correct",
        "any order",
    ),
]


@pytest.mark.parametrize(("dataset", "reference", "entry", "text", "kind", "why"), CANARIES)
def test_gym_canary(dataset, reference, entry, text, kind, why):
    verdict = gym_verifier.judge(problem(dataset, reference, entry), text)
    assert verdict.kind == kind, (why, verdict)


def test_a_near_miss_with_a_high_score_is_wrong():
    """Seconds off by one score 1 - 1/86400 in time_intervals."""
    entry = {"task_type": "time_seconds"}
    asked = problem("time_intervals", "03:22:03", entry)
    assert gym_verifier.judge(asked, "03:22:04").kind == "wrong"
    assert gym_verifier.judge(asked, "It took 03:22:03.").kind == "correct"


def test_a_completion_that_repeats_the_question_is_wrong_though_it_ends_in_the_answer():
    asked = replace(
        problem("mahjong_puzzle", "0 1\n1 0"), question="Turn this by 360 degrees:\n0 1\n1 0"
    )
    assert gym_verifier.judge(asked, asked.question).kind == "wrong"
    assert gym_verifier.judge(asked, f"<answer>{asked.question}</answer>").kind == "wrong"
    assert gym_verifier.judge(asked, "0 1\n1 0").kind == "correct"


def test_boards_of_tuples_survive_json():
    task = load_task(TaskConfig(source="reasoning_gym:rearc", size=2))
    for asked in task.problems:
        assert gym_verifier.judge(asked, asked.answer).kind == "correct"


@pytest.mark.parametrize(("run", "argument"), [(eval, "1+1"), (exec, "x = 1"), (open, "/dev/null")])
def test_the_guard_refuses_to_run_text_even_behind_a_bare_except(run, argument):
    @guarded()
    def scorer():
        with suppress(BaseException):  # what some scorers do
            run(argument)

    with pytest.raises(ExecutionRefused):
        scorer()
    assert eval("1 + 1") == 2


def test_an_unknown_scorer_that_runs_text_gives_an_error_verdict(monkeypatch):
    monkeypatch.delitem(CHECKERS, "string_insertion")
    gym_verifier._scorer.cache_clear()
    verdict = gym_verifier.judge(problem("string_insertion", "AB"), "print('hello')")
    gym_verifier._scorer.cache_clear()
    assert verdict.kind == "error"
    assert "tried to run the answer" in verdict.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("No.", "no number in the completion"),
        ("What a wonderful adventure", "no number in the completion"),
        ("", "an empty completion"),
        (" \n", "an empty completion"),
        ("9", "wrong by the data set's scorer"),
    ],
)
def test_the_reason_says_whether_nothing_was_written_or_no_number(text, reason):
    assert gym_verifier.judge(problem("chain_sum", "8"), text).reason == reason
