import gzip
import json
import re
import sys

import pytest
from huggingface_hub import constants

from rloop.errors import ConfigError, TaskError
from rloop.recipe.config import TaskConfig
from rloop.tasks import readers
from rloop.tasks.benchmarks import BENCHMARKS
from rloop.tasks.load import load_task

SUMS = [
    {"problem": f"{a} + {b}", "answer": a + b, "level": a, "note": None}
    for a in range(5)
    for b in range(4)
]


@pytest.fixture
def sums(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    return f"file:{path}"


def test_a_file_becomes_problems_with_stable_ids_and_the_rest_as_metadata(sums):
    task = load_task(TaskConfig(source=sums))
    first = task.problems[5]
    assert (task.name, task.split, len(task.problems)) == ("sums", "train", 20)
    assert (first.problem_id, first.task) == ("sums/train/5", "sums")
    assert (first.question, first.answer, first.verifier) == ("1 + 1", "2", "numeric")
    assert first.metadata == {"level": 1, "note": None}
    assert task.summary() == "sums/train: 20 read, 20 taken"


def test_relative_paths_start_at_the_current_directory(sums, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = load_task(TaskConfig(source="file:sums.jsonl", name="mine", split="test"))
    assert task.problems[0].problem_id == "mine/test/0"


def test_fields_name_the_columns(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"q": "1+1", "a": 2.0, "why": "count", "key": "x7"}\n')
    fields = {"problem": "q", "answer": "a", "solution": "why", "id": "key"}
    (problem,) = load_task(TaskConfig(source=f"file:{path}", fields=fields)).problems
    assert (problem.problem_id, problem.answer) == ("other/train/x7", "2")
    assert (problem.solution, problem.metadata) == ("count", {})


def test_filters_compare_values_or_lists_of_them(sums):
    task = load_task(TaskConfig(source=sums, filters={"level": [1, "2"]}))
    assert [p.metadata["level"] for p in task.problems] == [1] * 4 + [2] * 4
    assert task.summary() == "sums/train: 20 read, 12 left out by filters, 8 taken"


def test_size_is_chosen_by_seed_and_smaller_sizes_are_subsets(sums):
    def ids(size, seed):
        task = load_task(TaskConfig(source=sums, size=size, seed=seed))
        return [problem.problem_id for problem in task.problems]

    assert len(ids(6, 0)) == 6
    assert ids(6, 0) == ids(6, 0) != ids(6, 1)
    assert set(ids(3, 0)) < set(ids(6, 0))
    assert ids(6, 0) == sorted(ids(6, 0), key=lambda i: int(i.rpartition("/")[2]))


def test_duplicates_are_removed_and_counted_and_a_short_task_says_so(tmp_path):
    path = tmp_path / "twice.jsonl"
    rows = [*SUMS[:3], {"problem": "0  +  1", "answer": "1"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task(TaskConfig(source=f"file:{path}", size=10))
    assert task.summary() == (
        "twice/train: 4 read, 1 duplicates removed, 3 taken of the 10 asked for"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fields": {"answer": "reply"}}, "has no column 'reply' (fields: answer); it has problem"),
        ({"filters": {"rank": 1}}, "has no column 'rank' (filters: rank); it has problem, answer"),
        ({"filters": {"level": 99}}, "none of its 20 rows matches filters {'level': 99}"),
        (
            {"fields": {"problem": "note"}},
            "sums/train/0 (row 1) has no problem: column 'note' holds None",
        ),
        ({"source": "file:nowhere.csv"}, "no file nowhere.csv"),
    ],
)
def test_a_bad_task_is_one_clear_sentence_after_its_key(sums, settings, message):
    with pytest.raises(TaskError, match=re.escape(message)) as raised:
        load_task(TaskConfig(**{"source": sums, **settings}), key="tasks.train.0")
    assert str(raised.value).startswith("tasks.train.0: ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fields": {"reply": "answer"}}, "fields may name problem, answer, solution, id"),
        (
            {"verifier": "maths"},
            "verifier 'maths' is unknown. Did you mean math? Choose choice, exact, ",
        ),
        ({"verifier": "python:f"}, "names no module and function: write python:f:function"),
        ({"verifier": "reasoning_gym"}, "judges problems of reasoning_gym:NAME only"),
        ({"source": __file__}, f"is unknown. Did you mean file:{__file__}? Write reasoning_gym"),
        ({"source": "gsm9k"}, "source 'gsm9k' is unknown. Did you mean gsm8k? Write reasoning_gym"),
    ],
)
def test_a_task_that_can_never_be_is_a_wrong_recipe(sums, settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        load_task(TaskConfig(**{"source": sums, **settings}), key="tasks.train.0")
    assert str(raised.value).startswith("tasks.train.0: ")


def test_an_empty_file_is_said(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(TaskError, match="has no problems: there are no rows in it"):
        load_task(TaskConfig(source=f"file:{tmp_path / 'empty.jsonl'}"))


def gym(**settings):
    return load_task(TaskConfig(source="reasoning_gym:chain_sum", **settings))


def test_gym_problems_depend_on_seed_and_split_alone_and_neighbouring_seeds_share_none():
    def questions(**settings):
        return [problem.question for problem in gym(size=50, **settings).problems]

    assert questions(seed=1) == questions(seed=1)
    for other in ({"seed": 2}, {"seed": 1, "split": "test"}):
        assert not set(questions(seed=1)) & set(questions(**other))
    assert gym(size=2, seed=7, split="test").problems[1].problem_id == "chain_sum/test/7-1"


def test_gym_metadata_is_json_and_holds_what_the_scorer_needs():
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    (problem,) = gym(size=1, params=params).problems
    assert json.loads(json.dumps(problem.metadata)) == problem.metadata
    assert problem.metadata["dataset"] == "chain_sum"
    assert problem.metadata["params"] == params
    assert problem.verifier == "reasoning_gym"


def test_gym_draws_until_the_size_is_distinct_or_there_is_no_more():
    # bits of one digit each: 1 digit, 2 terms, signs + and -: at most 10 * 10 * 2 = 200 problems
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    task = gym(size=500, params=params)
    questions = {problem.question for problem in task.problems}
    assert len(questions) == len(task.problems) <= 200
    assert task.num_read == len(task.problems) + task.num_duplicates
    assert "taken of the 500 asked for" in task.summary()


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("chain_sums", {"size": 1}, "no data set 'chain_sums': did you mean chain_sum"),
        ("chain_sum", {}, "needs a size"),
        ("chain_sum", {"size": 1, "params": {"seed": 3}}, "set the task's own seed instead"),
        ("chain_sum", {"size": 1, "params": {"terms": 2}}, "It knows min_terms, max_terms"),
        ("chain_sum", {"size": 1, "params": {"min_terms": 9}}, "does not accept params"),
        ("intermediate_integration", {"size": 1}, "runs the completion as Python code"),
        ("simple_integration", {"size": 1}, "runs the completion as Python code"),
        ("rush_hour", {"size": 1}, "has no answers"),
        ("composite", {"size": 1}, "name those as tasks"),
    ],
)
def test_a_gym_task_that_cannot_be_is_one_clear_sentence(source, settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_task(TaskConfig(source=f"reasoning_gym:{source}", **settings))


GSM8K = {"id": "gsm8k_train/17", "problem": "Tom has 3 ...", "answer": "5", "solution": "3+2=5"}


def test_benchmarks_come_from_the_data_folder_or_the_variable(tmp_path, monkeypatch):
    text = json.dumps(GSM8K) + "\n"
    (tmp_path / "gsm8k_train.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    given = load_task(TaskConfig(source="gsm8k"), data_dir=str(tmp_path))
    monkeypatch.setenv("RLOOP_DATA", str(tmp_path))
    assert load_task(TaskConfig(source="gsm8k", split="train")) == given
    (problem,) = given.problems
    assert (problem.problem_id, problem.verifier) == ("gsm8k/train/17", "numeric")
    assert problem.solution == "3+2=5"


def test_a_data_folder_that_is_none_is_said_by_the_name_of_the_setting(sums, tmp_path, monkeypatch):
    nowhere = str(tmp_path / "nowhere")
    for source in ("gsm8k", sums):
        with pytest.raises(TaskError, match=r"^tasks.data_dir is '.*nowhere', which is not a"):
            load_task(TaskConfig(source=source), data_dir=nowhere)
    monkeypatch.setenv("RLOOP_DATA", nowhere)
    with pytest.raises(TaskError, match=r"^the variable RLOOP_DATA is '.*nowhere', which is not a"):
        load_task(TaskConfig(source="gsm8k"))
    load_task(TaskConfig(source=sums))


def test_a_held_out_benchmark_is_its_test_split_unless_told_otherwise(tmp_path):
    for split in ("train", "test"):
        row = {**GSM8K, "id": f"gsm8k_{split}/17"}
        (tmp_path / f"gsm8k_{split}.jsonl").write_text(json.dumps(row) + "\n")
    folder = str(tmp_path)
    config = TaskConfig(source="gsm8k")
    assert load_task(config, data_dir=folder, held_out=True).split == "test"
    assert load_task(config, data_dir=folder).split == "train"
    asked = TaskConfig(source="gsm8k", split="train")
    assert load_task(asked, data_dir=folder, held_out=True).split == "train"


HUB_ROWS = {
    "gsm8k": {"question": "1+1?", "answer": "1+1=2\n#### 2"},
    "math": {"problem": "1+1?", "solution": r"so \boxed{2}", "level": "Level 1"},
    "math500": {"problem": "1+1?", "answer": "2", "solution": "s", "unique_id": "test/1.json"},
    "aime24": {"id": 60, "problem": "1+1?", "answer": "2"},
    "aime25": {"id": "0", "problem": "1+1?", "answer": "2"},
    "amc23": {"id": 0, "question": "1+1?", "answer": 2.0},
    "minerva_math": {"question": "1+1?", "answer": "2"},
    "omni_math": {"problem": "1+1?", "answer": "2", "solution": "s"},
    "svamp": {"ID": "c-1", "Body": "There is 1", "Question": "and 1?", "Answer": "2.0"},
    "asdiv": {"body": "One apple.", "question": "And one?", "answer": "2 (apples)"},
    "mawps": {"id": "m1", "question": "1+1?", "result": "2"},
    "dapo_math_17k": {"prompt": "1+1?", "solution": "2", "reward_model": {"ground_truth": "2"}},
}


@pytest.fixture
def hub_answers(monkeypatch):
    monkeypatch.setattr(readers, "why_out_of_reach", lambda name: "")


class FakeDatasets:
    """Stands for the package `datasets`; remembers what was asked for."""

    def __init__(self, rows):
        self.rows, self.calls = rows, []

    def load_dataset(self, name, config, split):
        self.calls.append((name, config, split))
        if self.rows is None:
            raise ConnectionError(f"Couldn't reach '{name}' on the Hub")
        return self.rows


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
@pytest.mark.usefixtures("hub_answers")
def test_every_benchmark_reads_its_hub_columns(name, monkeypatch):
    datasets = FakeDatasets([HUB_ROWS[name]])
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.delenv("RLOOP_DATA", raising=False)
    (problem,) = load_task(TaskConfig(source=name)).problems
    assert problem.answer in ("2", "2.0")
    assert problem.question
    assert problem.problem_id.startswith(f"{name}/")
    assert datasets.calls[0][0] == BENCHMARKS[name].hub


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("math", {"problem": "1?", "solution": r"$\boxed{1}$ apple, so $\boxed{2}$ fruits"}),
        ("math", {"problem": "1?", "solution": "no box"}),
        ("gsm8k", {"question": "1?", "answer": "it is 2"}),
        ("asdiv", {"body": "1.", "question": "2?", "answer": "2 (weeks); 3 (days)"}),
    ],
)
@pytest.mark.usefixtures("hub_answers")
def test_a_row_without_one_clear_answer_is_left_out_and_counted(name, row, monkeypatch):
    datasets = FakeDatasets([row, HUB_ROWS[name]])
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.delenv("RLOOP_DATA", raising=False)
    task = load_task(TaskConfig(source=name))
    (problem,) = task.problems
    assert (problem.problem_id.rpartition("/")[2], problem.answer) == ("1", "2")
    assert "2 read, 1 without one clear answer left out, 1 taken" in task.summary()
    datasets.rows = [row]
    with pytest.raises(TaskError, match="there are no rows with one clear answer in it"):
        load_task(TaskConfig(source=name))


@pytest.mark.parametrize(
    ("solution", "answer"), [(r"so $\boxed 2$.", "2"), (r"$\boxed{1}$ and $\boxed{2}$", "1, 2")]
)
@pytest.mark.usefixtures("hub_answers")
def test_the_answer_of_math_is_what_its_solution_boxes_all_of_it(solution, answer, monkeypatch):
    row = {"problem": "1+1?", "solution": solution, "level": "Level 1"}
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets([row]))
    monkeypatch.delenv("RLOOP_DATA", raising=False)
    (problem,) = load_task(TaskConfig(source="math")).problems
    assert (problem.answer, problem.solution) == (answer, solution)


@pytest.mark.usefixtures("hub_answers")
def test_a_benchmark_whose_hub_columns_are_others_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets([{"problem": "1?", "answer": "2"}]))
    monkeypatch.delenv("RLOOP_DATA", raising=False)
    with pytest.raises(
        TaskError, match=r"KeyError\('solution'\)\); it has problem, answer\. Read it"
    ):
        load_task(TaskConfig(source="math"))


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        (
            {"a": '{"problem": "1?", "answer": "2"}', "b": '{"question": "1?", "level": {"x": 1}}'},
            "because column names don't match",
        ),
        (
            {"a": '{"problem": "1?", "answer": "2"}\n{"problem": "1'},
            "Missing a closing quotation mark",
        ),
    ],
)
def test_hub_data_of_unlike_columns_or_a_torn_line_is_one_sentence_with_the_cause(
    files, cause, tmp_path, monkeypatch
):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "sums"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.jsonl").write_text(text)
    with pytest.raises(TaskError) as raised:
        load_task(TaskConfig(source=f"hub:{folder}"), key="tasks.train.0")
    message = str(raised.value)
    assert message.startswith(f"tasks.train.0: hub:{folder}, split 'train', exists but cannot be")
    assert cause in message
    assert "use file:PATH" in message
    assert "\n" not in message


@pytest.mark.usefixtures("hub_answers")
def test_a_benchmark_without_file_or_hub_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets(None))
    with pytest.raises(TaskError) as raised:
        load_task(TaskConfig(source="gsm8k", split="test"), data_dir=str(tmp_path))
    message = str(raised.value)
    assert message.startswith(f"gsm8k: no file gsm8k_test.jsonl.gz in {tmp_path}, and hub:openai/")
    assert "put the file in tasks.data_dir" in message
    assert "\n" not in message


def test_a_hub_that_does_not_answer_is_named_with_the_way_to_its_cache(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets([]))
    monkeypatch.setattr(readers, "why_out_of_reach", lambda name: "no route to host")
    with pytest.raises(TaskError, match=r"\(no route to host\): .* HF_HUB_OFFLINE=1"):
        readers.read_hub_rows("me/sums", None, "train")


def test_a_hub_that_must_not_be_asked_is_not(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert readers.why_out_of_reach("me/sums") == ""


def test_hub_tasks_need_the_extra_and_say_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match=re.escape("pip install 'rloop-rl[hub]'")):
        readers.read_hub_rows("openai/gsm8k", "main", "train")


@pytest.mark.usefixtures("hub_answers")
def test_a_hub_task_takes_its_configuration_from_params(monkeypatch):
    datasets = FakeDatasets([{"question": "1+1?", "answer": "2"}])
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    task = load_task(TaskConfig(source="hub:me/sums", split="dev", params={"name": "small"}))
    assert datasets.calls == [("me/sums", "small", "dev")]
    assert task.problems[0].problem_id == "sums/dev/0"


@pytest.mark.parametrize(
    ("answers", "verifier"),
    [
        (["5", "-1,250", "0.5", "1e-5", ".5"], "numeric"),
        (["5", "1/2"], "math"),
        (["5", "x"], "math"),
        (["10:30", "5"], "math"),
    ],
)
def test_a_file_of_plain_numbers_gets_numeric_and_any_other_math(tmp_path, answers, verifier):
    path = tmp_path / "own.jsonl"
    rows = [{"question": f"What is number {i}?", "answer": a} for i, a in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task(TaskConfig(source=f"file:{path}"))
    assert {problem.verifier for problem in task.problems} == {verifier}
