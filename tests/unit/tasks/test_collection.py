import json
import re

import pytest

from rloop.errors import ConfigError, TaskError
from rloop.recipe.config import TasksConfig
from rloop.tasks.load import load_tasks


@pytest.fixture
def write(tmp_path):
    def write_questions(name, *questions):
        rows = [{"problem": question, "answer": "1"} for question in questions]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"source": f"file:{path}"}

    return write_questions


def load(train, evaluate):
    return load_tasks(TasksConfig.model_validate({"train": train, "evaluate": evaluate}))


def test_held_out_problems_and_repeats_are_left_out_of_training_and_counted(write):
    tasks = load(
        [write("a", "1 + 1", "1 + 2", "1 + 3"), write("b", "1+3", "1 + 4")],
        [write("held", "1  +  2", "9 + 9")],
    )
    assert [p.problem_id for p in tasks.train] == ["a/train/0", "a/train/2", "b/train/1"]
    assert [p.problem_id for p in tasks.evaluate["held"]] == ["held/train/0", "held/train/1"]
    assert tasks.summary() == [
        "a/train: 3 read, 3 taken",
        "b/train: 2 read, 2 taken",
        "held/train: 2 read, 2 taken",
        "removed because an earlier training task has them: 1",
        "left out of training because held holds them out: 1 of a",
        "in all 3 problems to train on, 2 held out",
    ]


def test_a_question_that_two_tasks_answer_differently_is_said_with_both(write, tmp_path, caplog):
    other = {"problem": "1 + 2", "answer": "2"}
    (tmp_path / "b.jsonl").write_text(json.dumps(other))
    source = {"source": f"file:{tmp_path / 'b.jsonl'}"}
    tasks = load([write("a", "1 + 2", "1 + 3")], [source])
    assert [problem.question for problem in tasks.train] == ["1 + 3"]
    (record,) = caplog.records
    assert "b/train/0 with '2' and a/train/0 with '1' (left out)" in record.getMessage()


def test_two_tasks_of_one_name_are_refused(write):
    with pytest.raises(ConfigError, match=r"tasks\.evaluate: 2 tasks are called 'x'.*name: x-2"):
        load([write("a", "1")], [write("x", "2"), {**write("y", "3"), "name": "x"}])


def test_one_id_for_two_problems_is_refused(write):
    train, held_out = write("a", "1"), {**write("b", "2"), "name": "a"}
    with pytest.raises(ConfigError, match=re.escape("different problems under the id 'a/train/0'")):
        load([train], [held_out])


def test_training_and_evaluation_may_share_a_name_when_their_problems_differ_by_split():
    chain = {"source": "reasoning_gym:chain_sum", "size": 5}
    tasks = load([chain], [{**chain, "split": "test"}])
    ids = [p.problem_id for p in (*tasks.train, *tasks.evaluate["chain_sum"])]
    assert len(set(ids)) == 10


def test_nothing_left_to_train_on_is_said(write):
    with pytest.raises(TaskError, match="all 1 are held out"):
        load([write("a", "1 + 1")], [write("b", "1 + 1")])


def test_without_an_evaluation_task_a_part_of_training_is_held_out_and_said(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(f'{{"problem": "{n} + 1", "answer": {n + 1}}}\n' for n in range(40)))

    def loaded(seed):
        train = [{"source": f"file:{path}", "seed": seed}]
        return load_tasks(TasksConfig.model_validate({"train": train}))

    tasks = loaded(0)
    held_out = {problem.problem_id for problem in tasks.evaluate["sums"]}
    trained = {problem.problem_id for problem in tasks.train}
    assert len(held_out) == 13  # 20 would be more than a third of 40
    assert len(trained) == 27
    assert not held_out & trained
    assert held_out == {problem.problem_id for problem in loaded(0).evaluate["sums"]}
    assert held_out != {problem.problem_id for problem in loaded(1).evaluate["sums"]}
    assert "held out: 13 of sums" in tasks.summary()


def test_two_tasks_hold_out_128_at_most_each():
    train = [
        {"source": f"reasoning_gym:{name}", "size": 1500, "seed": 1}
        for name in ("chain_sum", "products")
    ]
    tasks = load_tasks(TasksConfig.model_validate({"train": train}))
    assert {name: len(part) for name, part in tasks.evaluate.items()} == {
        "chain_sum": 128,
        "products": 128,
    }


def test_one_problem_is_too_few_to_hold_one_out(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text('{"problem": "1 + 1", "answer": 2}\n')
    with pytest.raises(TaskError, match=r"tasks\.evaluate names no task"):
        load_tasks(TasksConfig.model_validate({"train": [{"source": f"file:{path}"}]}))
