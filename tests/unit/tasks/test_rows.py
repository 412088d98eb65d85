"""What the rows of a user's own file become: columns found, answers as text, ids, messages."""

import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rloop.errors import TaskError
from rloop.recipe.config import TaskConfig
from rloop.store.export_formats import Chat, trl_problems
from rloop.tasks.load import load_task


@pytest.fixture
def load(tmp_path):
    def load_rows(rows, **settings):
        """Load rows from parquet, lines of JSON from a file as they are."""
        if isinstance(rows, str):
            path = tmp_path / "mine.jsonl"
            path.write_text(rows)
        else:
            path = tmp_path / "mine.parquet"
            table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
            pq.write_table(table, path)
        return load_task(TaskConfig(source=f"file:{path}", **settings))

    return load_rows


def lines(*rows):
    return "\n".join(map(json.dumps, rows))


def pairs(task):
    return [(problem.question, problem.answer) for problem in task.problems]


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
HISTORY = {"task": "sums", "success_rate": 0.5, "num_trajectories": 4}


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"problem": "1 + 1?", "answer": "2"}, ""),
        ({"prompt": "1 + 1?", "answer": "2"}, "problem from prompt, answer from answer"),
        ({"prompt": "1 + 1?", "solution": "2"}, "problem from prompt, answer from solution"),
        ({"query": "1 + 1?", "target": "2"}, "problem from query, answer from target"),
        ({"input": "1 + 1?", "label": 2}, "problem from input, answer from label"),
        ({"instruction": "1 + 1?", "final_answer": 2.0}, "problem from instruction, answer from f"),
        (
            {"question": "1 + 1?", "expected_answer": ["2"]},
            "problem from question, answer from exp",
        ),
        ({"problem": "1 + 1?", "ground_truth": "2"}, "problem from problem, answer from ground_tr"),
        ({"prompt": MESSAGES, "reward_model": {"ground_truth": "2"}}, "answer from reward_model."),
        ({"messages": MESSAGES, "answer": "2"}, "problem from messages, answer from answer"),
        ({"prompt": "1 + 1?", "reward_model.ground_truth": "2"}, "answer from reward_model.ground"),
        ({"problem": "1 + 1?", "question": "1 + 1?", "answer": "2", "ground_truth": 2}, ""),
        ({"question": "1 + 1?", "prompt": "Solve: 1 + 1?", "answer": "2", "label": 7}, ""),
        ({"problem": "1 + 1?", "solution": r"so $\boxed 2$"}, "answer from solution (its box)"),
        ({"problem": "1 + 1?", "answer": '["2"]'}, "answer from answer (a list of one)"),
    ],
)
def test_columns_of_other_tools_are_found_and_said(load, row, columns):
    task = load(lines(row))
    assert pairs(task) == [("1 + 1?", "2")]
    assert columns in task.summary()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"instruction": "Add.", "input": "1 1", "answer": "2"}],
            "has 2 columns that may contain the problem, input, instruction: choose one, such as "
            "fields: {problem: instruction}; it has instruction, input, answer",
        ),
        (
            [{"problem": "1 + 1?", "answer": "1+1=2", "final_answer": "2"}],
            "has 2 columns that may contain the answer, answer, final_answer: choose one",
        ),
        ([{"problem": "x", "a": "2", "b": {"c": 1, "d": 2}}], "it has problem, a, b.c, b.d"),
        ([{"problem": "x", "solution": "first\nthen 2"}], "write fields: {answer: solution}"),
        ([{"problem": "x", "solution": "2"}], "write fields: {answer: solution}"),
        (
            [{"prompt": "x", "solution": r"\boxed{1} is wrong, \boxed{2} is right"}],
            "'solution' does not hold one in a box in each row",
        ),
        ([{"problem": "x", "answer": ["2", "3"]}], "which is several values"),
        ([{"problem": "x", "answer": []}], "has no answer: column 'answer' holds []. Fix the row"),
        (
            [{"problem": "x", "answer": {"v": 2}}],
            "name one of its keys in fields, such as answer.v",
        ),
        ([{"problem": "x", "answer": None}], "has no answer: column 'answer' holds None"),
        ([{"problem": "x", "answer": " \n"}], "has no answer: column 'answer' holds ' \\n'"),
        ([{"problem": "x", "answer": float("nan")}], "has no answer: column 'answer' holds nan"),
        ([{"problem": "x", "answer": float("inf")}], "has no answer: column 'answer' holds inf"),
        ([{"problem": "x", "answer": 1}, {"problem": "y"}], "mine/train/1 (row 2) has no answer"),
        ([{"prompt": [MESSAGES[0]], "answer": "2"}], "has no problem: column 'prompt' holds"),
        ([{"prompt": str(MESSAGES), "answer": "2"}], "holds chat messages as Python text; save"),
        (
            [{"prompt": [{"role": "user", "content": [{"type": "image"}]}], "answer": "2"}],
            "holds a message with a part of type 'image'; only text is supported",
        ),
    ],
)
def test_what_may_be_meant_otherwise_or_holds_nothing_is_refused_in_one_sentence(
    load, rows, message
):
    with pytest.raises(TaskError) as raised:
        load(lines(*rows))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("0.00001", "0.00001"), ("1e22", "1e22"), ("4.5E33", "4.5E33"), ("1e-7", "1e-7"),
        ("2.50", "2.50"), ("5", "5"), ("5.0", "5"), ("-3.00", "-3"), ("1" + "0" * 22 + ".0",
        "1" + "0" * 22), ("12" * 12, "12" * 12),
        ("0.1234567890123456789", "0.1234567890123456789"), ("true", "True"), ("[[7]]", "7"),
    ],
)  # fmt: skip
def test_an_answer_that_is_a_number_in_json_keeps_its_digits(load, written, answer):
    task = load(f'{{"problem": "how many?", "answer": {written}, "n": 1.50}}')
    assert task.problems[0].answer == answer
    assert task.problems[0].metadata == {"n": 1.5}


@pytest.mark.parametrize(
    ("column", "answers"),
    [
        (pa.array([5.0, None, 7.5], pa.float64()), ["5", "7.5"]),
        (pa.array([1e-05, 1e22, 1e23]), ["0.00001", "1" + "0" * 22, "1" + "0" * 23]),
        (pa.array([0.1, 5.0], pa.float32()), ["0.1", "5"]),
        (pa.array([Decimal("2.50"), Decimal("5.00")]), ["2.50", "5"]),
        (pa.array([Decimal("0.0000001"), Decimal("3.0000000")]), ["0.0000001", "3"]),
        (pa.array([["5"], ["x"]]), ["5", "x"]),
        (pa.array(["5", "x"]).dictionary_encode(), ["5", "x"]),
    ],
)
def test_an_answer_of_a_parquet_table_is_plain_text(load, column, answers):
    questions = pa.array([f"how many {index}?" for index in range(len(column))])
    table = pa.table({"problem": questions, "answer": column}).filter(column.is_valid())
    assert [problem.answer for problem in load(table).problems] == answers


def test_columns_are_those_of_all_rows_not_of_the_first(load):
    task = load(
        lines({"problem": "a", "answer": 1}, {"problem": "b", "answer": 2, "solution": "s"})
    )
    assert [problem.solution for problem in task.problems] == [None, "s"]
    assert [problem.metadata for problem in task.problems] == [{}, {}]


def test_ids_that_are_missing_or_repeated_become_the_rows_number_and_are_counted(load):
    ids = ["1", None, "b", "b", " ", "4", {"x": 1}, "row-1"]
    rows = [{"problem": f"p{n}", "answer": 1, "id": key} for n, key in enumerate(ids)]
    task = load(lines(*rows, {"problem": "p8", "answer": 1}))
    # row 1 would be "1", which row 0 has, then "row-1", which row 7 has; row 4 would be row 5's "4"
    keys = ["1", "row-row-1", "b", "3", "row-4", "4", "6", "row-1", "8"]
    assert [problem.problem_id for problem in task.problems] == [f"mine/train/{k}" for k in keys]
    assert "5 ids missing or repeated, replaced by the row's number" in task.summary()
    assert task.problems[3].metadata == {"id": "b"}


def test_ids_do_not_depend_on_filters(load):
    rows = [{"problem": f"p{n}", "answer": 1, "level": n % 2} for n in range(4)]
    task = load(lines(*rows), filters={"level": 1})
    assert [problem.problem_id for problem in task.problems] == ["mine/train/1", "mine/train/3"]
    rows = [{**row, "id": "same", "extra": {"split": "a"}} for row in rows]
    task = load(lines(*rows), filters={"level": 1, "extra.split": "a"})
    assert [problem.problem_id for problem in task.problems] == ["mine/train/1", "mine/train/3"]


def test_dotted_fields_lead_into_objects_and_a_column_of_that_very_name_comes_first(load):
    row = {"extra": {"q": "1 + 1?", "n": {"a": 2, "why": "count"}}, "b.c": "x9"}
    fields = {"problem": "extra.q", "answer": "extra.n.a", "solution": "extra.n.why", "id": "b.c"}
    (problem,) = load(lines(row), fields=fields).problems
    assert (problem.question, problem.answer, problem.solution) == ("1 + 1?", "2", "count")
    assert problem.problem_id == "mine/train/x9"
    with pytest.raises(
        TaskError, match=r"has no column 'extra.z' \(fields: answer\); it has extra.q"
    ):
        load(lines(row), fields={**fields, "answer": "extra.z"})


def test_of_chat_messages_the_last_of_the_user_is_asked_and_the_others_are_said(load, caplog):
    earlier = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]
    parts = [{"type": "text", "text": "1 + "}, {"type": "text", "text": "1?"}]
    rows = [
        {"prompt": MESSAGES, "answer": "2"},
        {"prompt": [*earlier, {"role": "user", "content": "2 + 2?"}], "answer": "4"},
        {"prompt": json.dumps([{"role": "user", "content": "3 + 3?"}]), "answer": "6"},
        {"prompt": [{"role": "user", "content": parts}], "answer": "2"},
        {"prompt": "5 + 5?", "answer": "10"},
    ]
    task = load(lines(*rows))
    # the fourth is the first once more
    assert pairs(task) == [("1 + 1?", "2"), ("2 + 2?", "4"), ("3 + 3?", "6"), ("5 + 5?", "10")]
    assert task.problems[0].metadata == {"system_message": "Be brief."}
    assert task.problems[1].metadata == {"other_messages": earlier}
    said = [record.getMessage() for record in caplog.records]
    assert "1 of 5 prompts" in said[0]
    assert "'Be brief.'; put it into prompt.system" in said[0]
    assert "1 of 5 prompts" in said[1]
    assert "`other_messages`" in said[1]


@pytest.mark.parametrize("chat", [Chat(), Chat(head="<u>", tail="<a>", system="Be brief.")])
def test_what_rloop_exports_for_trl_is_read_back(load, chat):
    numbers = range(2)
    problems = [
        {
            **HISTORY,
            "problem_id": f"sums/train/{n}",
            "prompt_text": f"{chat.head}{n} + 1?{chat.tail}",
            "reference": str(n + 1),
        }
        for n in numbers
    ]
    task = load(trl_problems(problems, chat))
    assert pairs(task) == [(f"{n} + 1?", str(n + 1)) for n in numbers]
    assert task.problems[0].metadata["problem_id"] == "sums/train/0"
    assert task.problems[0].metadata.get("system_message") == chat.system


def test_of_exported_trajectories_the_reference_is_the_answer_not_what_the_policy_said(load):
    row = {"prompt_text": "1 + 1?", "completion_text": "3", "answer": "3", "reference": "2"}
    assert pairs(load([row])) == [("1 + 1?", "2")]
    assert pairs(load([row], fields={"answer": "answer"})) == [("1 + 1?", "3")]


def test_equal_questions_with_different_answers_are_said_with_both(load, caplog):
    rows = [{"problem": "Add 1 + 2.", "answer": answer} for answer in ("3", "3.0", "4")]
    task = load(lines(*rows))
    assert pairs(task) == [("Add 1 + 2.", "3")]
    (record,) = caplog.records
    assert "mine/train/0 with '3' and mine/train/2 with '4' (left out)" in record.getMessage()
