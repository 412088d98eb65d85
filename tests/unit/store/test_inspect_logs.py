"""Logs that `rloop store export --format inspect` writes, as inspect_ai reads them."""

import json
from dataclasses import replace

import pytest
from doubles_records import group_at, place_at

from rloop.errors import ConfigError
from rloop.store.export import export_trajectories
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Verdict


@pytest.fixture
def run_dir(tmp_path):
    """An RL step of two problems; an evaluation of one, cut short and failing to be judged."""
    folder = tmp_path / "run"
    store, place = TrajectoryStore(folder), place_at(3)
    store.append(place, [group_at(place, f"sums/{n}") for n in (0, 1)])
    place = place_at(0, phase="evaluate", policy="iter-001")
    group = group_at(place, "held/0", [("2", True), ("3", False)])
    cut, failed = group.trajectories
    cut = replace(cut, completion=replace(cut.completion, finish_reason="length"))
    failed = replace(failed, verdict=Verdict(kind="error", reason="slow", verifier_version="n/1"))
    store.append(place, [replace(group, trajectories=(cut, failed))], part="iter-001-sums")
    return folder


def test_a_log_is_a_policy_in_a_step_and_a_sample_a_problem_with_the_member_as_epoch(
    run_dir, tmp_path
):
    assert export_trajectories(run_dir, tmp_path / "logs", "inspect") == 6
    files = sorted((tmp_path / "logs").iterdir())
    logs = [json.loads(file.read_text()) for file in files]
    explored = next(log for log in logs if log["eval"]["model"] == "rloop/explored-001")
    assert [(sample["id"], sample["epoch"]) for sample in explored["samples"]] == [
        ("sums/0", 1),
        ("sums/0", 2),
        ("sums/1", 1),
        ("sums/1", 2),
    ]
    assert explored["eval"]["config"] == {"epochs": 2}
    assert explored["results"]["scores"][0]["metrics"]["mean"]["value"] == 0.5
    assert export_trajectories(run_dir, tmp_path / "right", "inspect", "correct") == 2
    with pytest.raises(ConfigError, match="--select must be all or correct"):
        export_trajectories(run_dir, tmp_path / "no", "inspect", "expert")


def test_inspect_lists_and_reads_the_logs_with_its_own_reader(run_dir, tmp_path):
    reader = pytest.importorskip("inspect_ai.log")
    export_trajectories(run_dir, tmp_path / "logs", "inspect")
    found = reader.list_eval_logs(str(tmp_path / "logs"))
    logs = [reader.read_eval_log(info) for info in found]
    assert sorted(log.eval.model for log in logs) == ["rloop/explored-001", "rloop/iter-001"]
    held = next(log for log in logs if log.eval.model == "rloop/iter-001")
    assert (held.status, held.eval.task, held.eval.metadata["step"]) == ("success", "sums", 0)
    cut, failed = held.samples
    assert [message.text for message in cut.messages] == ["1+1=", "2"]
    assert (cut.output.stop_reason, cut.output.completion, cut.target) == ("max_tokens", "2", "2")
    # "1+1=" is four tokens, "2" and its end two
    assert cut.output.usage.total_tokens == 6
    assert cut.scores["numeric/1"].value == "C"
    assert (failed.id, failed.epoch) == ("held/0", 2)
    assert failed.scores["n/1"].value == "N"
    assert failed.scores["n/1"].explanation == "slow"
