"""Environments of the package `verifiers`: with a stand-in, and with the package where it is."""

import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from rloop.errors import ConfigError, TaskError
from rloop.recipe.config import TaskConfig
from rloop.tasks.load import load_task
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import check_references

STAND_IN = Path(__file__).parents[2] / "stand_ins"
HEAD = """
import asyncio
import verifiers as vf

def data(rows):
    try:
        from datasets import Dataset
    except ImportError:
        return rows
    return Dataset.from_list(rows)

def rows(begin, count):
    return data([
        {"question": f"What is {i} + 1?", "answer": str(i + 1), "info": {"level": i % 3}}
        for i in range(begin, begin + count)
    ])

def said(completion):
    return completion[-1]["content"]
"""
SUMS = """
def correct(completion, answer):
    return float(f"<answer>{answer}</answer>" in said(completion))

async def short(completion, **_):
    await asyncio.sleep(0.001)
    return 1.0 if len(said(completion)) < 40 else 0.0

def load_environment(size=5, **_):
    print("what an environment prints is no result")
    rubric = vf.Rubric(funcs=[correct, short], weights=[1.0, 0.25])
    return vf.SingleTurnEnv(
        dataset=rows(0, size), eval_dataset=rows(50, 3), rubric=rubric, system_prompt="Be brief."
    )
"""
SINGLE = (
    "def load_environment():\n    return vf.SingleTurnEnv(dataset=rows(0, 4), rubric={rubric})\n"
)


@pytest.fixture(params=["stand-in", "package"])
def environment(request, tmp_path, monkeypatch):
    """Return what writes an environment's module under a name of its own."""
    if request.param == "stand-in":
        monkeypatch.syspath_prepend(STAND_IN)
    elif (found := find_spec("verifiers")) is None or found.origin is None:  # or just a folder
        pytest.skip("the package verifiers is not installed: pip install 'rloop-rl[verifiers]'")
    monkeypatch.syspath_prepend(tmp_path)

    def write(text, name="own_sums"):
        (tmp_path / f"{name}.py").write_text(HEAD + text)
        return f"verifiers:{name.replace('_', '-')}"

    return write


@pytest.fixture
def pool():
    with VerifierPool(num_workers=1, timeout_s=10.0) as pool:
        yield pool


def test_rewards_are_the_rubrics_and_correct_is_the_full_reward(environment, pool, caplog):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    source = environment(SUMS)
    task = load_task(TaskConfig(source=source, params={"size": 4}))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert task.summary() == "own-sums/train: 4 read, 4 taken"
    problem = task.problems[2]
    assert (problem.question, problem.answer) == ("What is 2 + 1?", "3")
    assert problem.metadata["system_message"] == "Be brief."
    assert "put it into prompt.system" in caplog.text
    report = check_references(task.problems, pool)
    assert len(report.kept) == 4
    texts = ["<answer>3</answer>", "3", "<answer>4</answer>", f"<answer>3</answer>{'!' * 40}"]
    verdicts = pool.verify([(problem, text) for text in texts])
    # of a full reward of 1.25: all of it, 0.25 and 1
    assert [verdict.score for verdict in verdicts] == pytest.approx([1.0, 0.2, 0.2, 0.8])
    assert [verdict.kind for verdict in verdicts] == ["correct", "wrong", "wrong", "wrong"]
    lenient = load_task(TaskConfig(source=source, params={"correct_from": 0.8}))
    verdicts = pool.verify([(lenient.problems[2], text) for text in texts])
    assert [verdict.kind for verdict in verdicts] == ["correct", "wrong", "wrong", "correct"]
    held_out = load_task(TaskConfig(source=source), held_out=True)
    assert [one.problem_id for one in held_out.problems] == [f"own-sums/test/{i}" for i in range(3)]


def test_a_reward_function_that_raises_is_an_error_and_no_zero(environment, pool):
    text = """
def correct(completion, answer):
    return float(int(said(completion)) == int(answer))
""" + SINGLE.format(rubric="vf.Rubric(funcs=[correct])")
    (problem, *others) = load_task(TaskConfig(source=environment(text))).problems
    right, wrong, odd = pool.verify([(problem, text) for text in ("1", "2", "one")])
    assert (right.kind, wrong.kind, odd.kind) == ("correct", "wrong", "error")
    assert "invalid literal for int() with base 10: 'one'" in odd.reason
    with pytest.raises(TaskError, match=r"rubric gives an error for the question"):
        check_references([problem, *others], pool)


def test_a_rubric_that_takes_the_question_is_refused(environment, pool):
    text = """
def mentions(completion, answer):
    return float(any(word in said(completion) for word in (answer, "What")))
""" + SINGLE.format(rubric="vf.Rubric(funcs=[mentions])")
    problems = load_task(TaskConfig(source=environment(text))).problems
    with pytest.raises(TaskError, match=r"rubric judges the question itself.* correct"):
        check_references(problems, pool)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "class Game(vf.MultiTurnEnv):\n"
            "    async def env_response(self, messages, state, **_):\n"
            "        return []\n"
            "def load_environment():\n"
            "    rubric = vf.Rubric(funcs=[lambda completion: 1.0])\n"
            "    return Game(dataset=rows(0, 2), rubric=rubric)\n",
            "is a Game, which may take several turns; rloop takes environments of one turn",
        ),
        (
            "def best(completions):\n    return [1.0 for _ in completions]\n"
            + SINGLE.format(rubric="vf.Rubric(funcs=[best])"),
            "rewards completions by comparing them with others",
        ),
        (
            SINGLE.format(rubric="vf.Rubric(funcs=[lambda completion: 0.5])"),
            r"the most is 0.5 of 1: if '\{answer\}' is right, set params.correct_from=0.5 or lower",
        ),
        (
            "def load_environment():\n    raise KeyError('TOKEN')\n",
            r"cannot be read: .*TOKEN",
        ),
        (
            "def load_environment():\n"
            "    data_ = data([{'question': 'a', 'answer': ''}])\n"
            "    rubric = vf.Rubric(funcs=[lambda completion: 1.0])\n"
            "    return vf.SingleTurnEnv(dataset=data_, rubric=rubric)\n",
            "has no answers in its column `answer`",
        ),
    ],
)
def test_an_environment_that_cannot_be_used_is_refused_in_a_sentence(environment, text, words):
    with pytest.raises(TaskError, match=words) as caught:
        load_task(TaskConfig(source=environment(text, "own_odd")))
    assert "\n" not in str(caught.value)
    assert "verifiers:own-odd" in str(caught.value)


def test_a_held_out_task_does_not_fall_back_to_the_training_data(environment):
    source = environment(SINGLE.format(rubric="vf.Rubric(funcs=[lambda completion: 1.0])"))
    with pytest.raises(TaskError, match=r"no split 'test'; it has train\. .* 10 % of the training"):
        load_task(TaskConfig(source=source), held_out=True)


def test_without_the_package_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "verifiers.py").write_text("raise ImportError('absent')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskError, match=r"needs the package verifiers: pip install"):
        load_task(TaskConfig(source="verifiers:sums"))
    (tmp_path / "verifiers.py").write_text("__version__ = '0.4.0'\n")
    with pytest.raises(TaskError, match=r"before 0\.4, and 0\.4\.0 is installed: pip install"):
        load_task(TaskConfig(source="verifiers:sums"))


@pytest.mark.parametrize("value", [0, 1.5, "most"])
def test_a_share_of_the_reward_that_is_none_is_refused(value):
    config = TaskConfig(source="verifiers:sums", params={"correct_from": value})
    with pytest.raises(ConfigError, match=r"params\.correct_from must be a number above 0"):
        load_task(config)


def test_the_rubric_judges_its_own_environments_problems_only(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    with pytest.raises(ConfigError, match=r"rubric judges problems of verifiers:NAME only"):
        load_task(TaskConfig(source=f"file:{path}", verifier="rubric"))
