"""The benchmark files, where there are any: references agree with themselves but for misprints."""

from pathlib import Path

import pytest

from rloop.recipe.config import TaskConfig, TasksConfig
from rloop.tasks.load import load_task, load_tasks
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import check_references

DATA = Path(__file__).parents[3].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"needs the benchmark files in {DATA} (see design notes)"
)
# Their braces do not close, or a form feed stands in them; docs/how-to/add-a-task.md lists them.
MISPRINTS = {
    "omni_math/test/183",
    "omni_math/test/682",
    "omni_math/test/710",
    "omni_math/test/862",
    "omni_math/test/1469",
}


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(num_workers=1, timeout_s=5.0) as pool:
        yield pool


def load(source, **settings):
    return load_task(TaskConfig(source=source, **settings), data_dir=str(DATA))


@pytest.mark.parametrize(
    ("source", "split", "num_read"),
    [("gsm8k", "train", 7473), ("gsm8k", "test", 1319), ("svamp", "test", 1000),
     ("asdiv", "test", 2083), ("mawps", "test", 1981), ("aime24", "test", 30),
     ("aime25", "test", 30), ("amc23", "test", 40)],
)  # fmt: skip
def test_every_reference_agrees_with_itself(pool, source, split, num_read):
    task = load(source, split=split)
    assert task.num_read == num_read
    assert check_references(task.problems, pool).bad == ()


@pytest.mark.parametrize("source", ["math500", "minerva_math", "math"])
def test_a_part_of_the_larger_sets_agrees_with_itself(pool, source):
    task = load(source, split="test", size=150)
    assert check_references(task.problems, pool).bad == ()


def test_known_misprints_of_omni_math_are_found_and_can_be_left_out(pool):
    task = load("omni_math")
    chosen = [p for p in task.problems if p.problem_id in MISPRINTS] + list(task.problems[:100])
    report = check_references(chosen, pool, policy="drop")
    assert {problem.problem_id for problem, _ in report.bad} == MISPRINTS


def test_math500_stands_in_the_test_split_and_is_left_out_of_training():
    tasks = load_tasks(
        TasksConfig.model_validate(
            {
                "data_dir": str(DATA),
                "train": [{"source": "math", "split": "test"}],
                "evaluate": [{"source": "math500"}],
            }
        )
    )
    assert len(tasks.evaluate["math500"]) == 500
    assert len(tasks.held_out_pairs) == 500
    # 5000 read, 1 repeat removed, 500 held out
    assert len(tasks.train) == 5000 - 1 - 500


@pytest.mark.soak
@pytest.mark.parametrize("path", sorted(DATA.glob("*.jsonl.gz")), ids=lambda path: path.name)
def test_every_reference_of_every_file_agrees_with_itself_by_the_math_verifier(path):
    """All rows, all by `math`, whatever the benchmark's own verifier is."""
    task = load_task(TaskConfig(source=f"file:{path}", verifier="math"), data_dir=None)
    with VerifierPool(num_workers=2, timeout_s=10.0) as pool:
        report = check_references(task.problems, pool, policy="drop")
    bad = {problem.answer: verdict.reason for problem, verdict in report.bad}
    print(f"{path.name}: {report.summary()} {bad}")  # noqa: T201 (what docs/explanation/reliability.md quotes)
    assert len(report.kept) >= 0.995 * len(task.problems), bad
