"""A run judged again: nothing sampled, nothing changed in place, every number told anew."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doubles_runs import begin, scripted, toy_recipe, trajectories, write_problems

from rloop.errors import ConfigError, StoreError, TaskError
from rloop.evaluation import recount
from rloop.observe.run_log import read_metrics
from rloop.report.compare import compare_runs
from rloop.report.page import write_report
from rloop.session.process import resume
from rloop.session.rescore import CHANGES, rescore
from rloop.store.records import read_record
from rloop.store.trajectories import TrajectoryStore
from rloop.store.verify import verify_run
from rloop.tasks.verifiers.registry import version_of

SHORT = "python:doubles_verifiers:is_short"
ALL = "select * from trajectories order by all"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of one iteration; a right answer for every other member, `no idea` for the rest."""
    folder = tmp_path_factory.mktemp("whole")
    code, run_dir = begin(toy_recipe(folder, iterations=1), folder, scripted())
    assert code == 0
    return run_dir


@pytest.fixture
def run_dir(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def content(run_dir: Path) -> dict[str, bytes]:
    files = (path for path in run_dir.rglob("*") if path.is_file())
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in files}


def test_the_same_verifier_gives_the_same_log_and_the_same_trajectories(run_dir):
    before = content(run_dir)
    found = rescore(run_dir)
    again = content(found.directory)
    assert found.directory == run_dir.with_name("run-rescored")
    assert found.num_changed == 0
    assert again["metrics.jsonl"] == before["metrics.jsonl"]
    stores = [TrajectoryStore(folder) for folder in (run_dir, found.directory)]
    assert stores[0].query(ALL).equals(stores[1].query(ALL))
    assert content(run_dir) == before
    # 6 training and 4 held-out problems
    assert found.notes == ["10 of 10 references are judged correct."]


def test_another_verifier_is_counted_by_task_and_told_in_every_number(run_dir):
    """`is_short` takes `no idea`, of 7 letters, for wrong, and texts of even length for right.

    Members 0 and 2 say `51` and `so so 51` (2 and 8 letters, even: right as before) on the held-out
    problems; 1 and 3 say `no idea` (7: wrong as before). On the training problems answers are one
    digit, `1` to `6`: a bare answer is right, `so so 1` (7 letters) is not.
    """
    found = rescore(run_dir, SHORT)
    rows = {(task, old): counts for task, old, *counts in found.confusion_rows()}
    # held: 4 problems x 4 samples x 3 evaluations = 48, half of them right both times
    assert rows["held", "correct"] == [24, 0, 0]
    assert rows["held", "wrong"] == [0, 24, 0]
    # sums: 4 steps x 3 problems x 4 = 48; of 24 right ones the 12 of member 2 become wrong
    assert rows["sums", "correct"] == [12, 12, 0]
    assert rows["sums", "wrong"] == [0, 24, 0]
    assert found.confusion.total() == 96
    lines = read_metrics(found.directory)
    rewards = [line["explore/reward_mean"] for line in lines if line["phase"] == "explore"]
    assert rewards == [0.25] * 4
    rates = "select avg(reward) as r, avg(correct::int) as c from trajectories where task = 'sums'"
    assert trajectories(found.directory, rates) == [{"r": 0.25, "c": 0.25}]
    assert verify_run(found.directory).is_sound


def test_measurements_are_told_anew(run_dir):
    """`exact` takes a bare answer alone: of the members 0 (`51`) and 2 (`so so 51`) the first."""
    found = rescore(run_dir, "exact")
    # avg@4: 2 of 4 -> 1 of 4; pass@4: some of four is right, 1 -> 1
    told = {line["policy"]: line for line in read_metrics(found.directory)}["iter-001"]
    assert (told["evaluate/held/avg@4"], told["evaluate/held/pass@4"]) == (0.25, 1.0)
    result = read_record(found.directory / "manifest.json")["phases"]["1/evaluate/iter-001"]
    assert result["metrics"]["held/avg@4"] == 0.25


def test_changes_hold_both_verdicts_and_where_they_came_from(run_dir):
    found = rescore(run_dir, SHORT)
    table = pq.read_table(found.directory / CHANGES)
    # numeric finds an answer in every text with a number, is_short names none: 24 + 24 changed
    assert len(table) == found.num_changed == 48
    turned = table.filter(pa.compute.not_equal(table["old_verdict"], table["new_verdict"]))
    assert turned["member"].unique().to_pylist() == [2]
    assert turned["old_verifier_version"].unique().to_pylist() == [version_of("numeric")]
    assert turned["new_verifier_version"].unique().to_pylist() == [SHORT]
    manifest = read_record(found.directory / "manifest.json")
    assert manifest["phases"]["0/rescored"] == {
        "from": str(run_dir.resolve()),
        "verifier": SHORT,
        "versions": [SHORT],
    }


def test_report_and_comparison_read_it_and_policies_are_those_of_the_run(run_dir):
    found = rescore(run_dir, "exact")
    assert "toy-rescored" in write_report(found.directory).read_text()
    assert compare_runs([run_dir, found.directory]).warnings
    phases = read_record(found.directory / "manifest.json")["phases"]
    assert Path(phases["1/finetune"]["path"]) == (run_dir / "policies/iter-001").resolve()


def test_it_is_never_resumed(run_dir):
    found = rescore(run_dir)
    with pytest.raises(StoreError, match="judged again"):
        resume(found.directory, scripted())


def test_a_run_that_stopped_half_way_is_judged_as_far_as_it_is(run_dir):
    shutil.rmtree(run_dir / "expert")
    manifest = run_dir / "manifest.json"
    data = json.loads(manifest.read_text())
    for key in ("1/select", "1/finetune", "1/evaluate/iter-001"):
        del data["phases"][key]
    del data["digest"], data["metrics"]
    manifest.write_text(json.dumps(data))
    found = rescore(run_dir)
    assert found.confusion.total() == 96
    assert "1/select" not in read_record(found.directory / "manifest.json")["phases"]


def test_problems_whose_task_is_gone_are_judged_by_what_the_store_has(run_dir):
    point_tasks_at(run_dir, train=run_dir / "gone.jsonl")
    found = rescore(run_dir)
    assert found.num_changed == 0
    assert any("gone.jsonl" in note for note in found.notes)
    assert (
        "6 problems are no longer in the recipe's tasks, such as sums/train/sum-0: judged by what "
        "the store has of them."
    ) in found.notes


def test_a_reference_that_was_changed_since_is_told_and_the_old_one_is_used(run_dir, tmp_path):
    changed = write_problems(tmp_path / "changed.jsonl", 4, first=50)
    changed.write_text(changed.read_text().replace('"answer": "51"', '"answer": "99"'))
    point_tasks_at(run_dir, evaluate=changed)
    found = rescore(run_dir)
    assert found.num_changed == 0
    assert any(note.startswith("1 problems now have a different reference") for note in found.notes)


def point_tasks_at(run_dir: Path, **files: Path) -> None:
    path = run_dir / "config.json"
    config = json.loads(path.read_text())
    for kind, file in files.items():
        config["tasks"][kind][0]["source"] = f"file:{file}"
    path.write_text(json.dumps(config))


def test_reasoning_gym_cannot_judge_without_the_problem_itself(run_dir, tmp_path):
    with pytest.raises(TaskError, match="which the verifier needs"):
        rescore(run_dir, "reasoning_gym")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_verifier_that_takes_no_reference_is_refused_and_leaves_nothing(run_dir, tmp_path):
    with pytest.raises(TaskError, match="gave an error for all 10 reference answers"):
        rescore(run_dir, "python:doubles_verifiers:missing")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_interrupt_leaves_nothing_half(run_dir, tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    # Ctrl-C after all was judged, just before the log is told: no signal hits that moment surely.
    monkeypatch.setattr("rloop.session.rescore.recount", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rescore(run_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_it_overwrites_nothing(run_dir, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="there exists"):
        rescore(run_dir, out=tmp_path / "there")
    with pytest.raises(ConfigError, match=r"'mth' is unknown\. Did you mean math"):
        rescore(run_dir, "mth")


def test_a_torn_file_is_named_and_nothing_is_judged_around_it(run_dir):
    path = run_dir / "trajectories/iteration-1/phase-explore/step-000002.parquet"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StoreError, match=r"step-000002\.parquet is torn"):
        rescore(run_dir)


def test_a_line_whose_samples_were_set_aside_stays_as_it_was(run_dir):
    recipe = toy_recipe(run_dir.parent)
    line = {
        "iteration": 1,
        "phase": "evaluate",
        "step": 4,
        "policy": "explored-001",
        "evaluate/held/avg@4": 0.9,
        "evaluate/held/problems_count": 5,
    }
    store = TrajectoryStore(run_dir)
    assert list(recount.recount([line], store, recipe.evaluate, seed=0)) == [line]
    line |= {"iteration": 0, "step": 0, "policy": "base"}
    with pytest.raises(StoreError, match="Problems of the evaluation of base are missing"):
        list(recount.recount([line], store, recipe.evaluate, seed=0))
