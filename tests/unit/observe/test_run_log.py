import json
import math
from dataclasses import replace

import numpy as np
import pytest
from doubles_records import place_at

from rloop.errors import StoreError
from rloop.observe.run_log import GlobalStep, RunLog, read_metrics


@pytest.fixture
def log(tmp_path):
    found = RunLog(tmp_path)
    yield found
    found.close()


def test_a_line_has_its_place_and_prefixed_keys(log, tmp_path):
    log.metrics(place_at(40), {"reward_mean": 0.41, "groups_count": 8})
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"iteration":1,"phase":"explore","step":40,"policy":"explored-001","policy_kind":"explored",'
        '"explore/reward_mean":0.41,"explore/groups_count":8}\n'
    )


def test_a_task_in_the_key_stays_under_the_phase(log, tmp_path):
    log.metrics(place_at(0, phase="evaluate", policy="base"), {"gsm8k/pass@8": 0.5})
    assert read_metrics(tmp_path)[0]["evaluate/gsm8k/pass@8"] == 0.5


def test_values_that_are_not_finite_are_null_and_counted(log, tmp_path):
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0}
    log.metrics(place_at(1), values)
    line = read_metrics(tmp_path)[0]
    assert [line[f"explore/{key}"] for key in "abcd"] == [None, None, None, 1.0]
    assert line["nonfinite_count"] == 3


def test_numbers_of_numpy_are_written_as_numbers(log, tmp_path):
    log.metrics(place_at(1), {"a": np.float32(0.5), "b": np.int64(3), "c": np.float64("nan")})
    line = read_metrics(tmp_path)[0]
    assert [line["explore/a"], line["explore/b"], line["explore/c"]] == [0.5, 3, None]


def test_each_line_is_in_the_file_at_once(log, tmp_path):
    for step in (1, 2, 3):
        log.metrics(place_at(step), {})
        assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, step + 1))


def test_a_log_cut_at_any_byte_reopens_to_whole_lines(tmp_path):
    log = RunLog(tmp_path)
    for step in (1, 2):
        log.metrics(place_at(step), {"reward_mean": 0.5})
    log.close()
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for offset in range(len(whole) + 1):
        path.write_bytes(whole[:offset])
        num_whole = sum(end <= offset for end in ends)
        assert len(read_metrics(tmp_path)) == num_whole
        again = RunLog(tmp_path)
        again.metrics(place_at(9), {})
        again.close()
        steps = [line["step"] for line in read_metrics(tmp_path)]
        assert steps == [*range(1, num_whole + 1), 9]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step":1}\n{"step":\n{"step":3}\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl, line 2, is not valid JSON"):
        read_metrics(tmp_path)


def test_a_run_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path) == []


def test_resuming_cuts_back_to_the_saved_position(log, tmp_path):
    log.metrics(place_at(1), {"reward_mean": 0.1})
    position = log.position()
    log.metrics(place_at(2), {"reward_mean": 0.2})
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    log.close()
    resumed = RunLog(tmp_path)
    resumed.truncate(position)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    resumed.metrics(place_at(2), {"reward_mean": 0.2})
    resumed.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_a_log_shorter_than_the_saved_point_says_so(log):
    with pytest.raises(StoreError, match=r"metrics\.jsonl has 0 bytes, fewer than the 7"):
        log.truncate(7)


def test_a_full_disk_is_one_sentence(tmp_path):
    # The log is a link to a device that is always full: a real ENOSPC, without a mock.
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    log = RunLog(tmp_path)
    with pytest.raises(
        StoreError,
        match=r"events\.jsonl could not be written: the disk is full .* bytes free.*resume",
    ):
        log.event("save", place_at(1), 0.0, 1.0)
    log.close()


def test_events_say_what_when_and_how_long(log, tmp_path):
    log.event("save", place_at(3), 1767225600.12345, 2.5, bytes=10)
    with pytest.raises(KeyError), log.span("evaluate", place_at(4), task="sums"):
        raise KeyError
    first, second = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    place = {"iteration": 1, "phase": "explore", "step": 3}
    times = {"start": 1767225600.123, "seconds": 2.5}
    assert first == {"name": "save", **place, **times, "bytes": 10}
    assert (second["name"], second["step"], second["task"]) == ("evaluate", 4, "sums")
    assert second["error"] == "KeyError"
    assert 0 <= second["seconds"] < 5


def test_the_global_step_rises_over_iterations_and_phases():
    count = GlobalStep()
    # 40 steps of RL, then 10 updates, then RL again: 40, 40 + 10 = 50, 50 + 3 = 53
    assert count.at(0, "evaluate", 0) == 0
    assert count.at(1, "explore", 39) == 39
    assert count.at(1, "explore", 40) == 40
    assert count.at(1, "evaluate", 40) == 40
    assert count.at(1, "select", 0) == 40
    assert count.at(1, "finetune", 10) == 50
    assert count.at(1, "evaluate", 0) == 50
    assert count.at(2, "explore", 3) == 53


def test_a_reopened_log_counts_on(tmp_path):
    log = RunLog(tmp_path)
    log.metrics(place_at(5), {})
    log.metrics(replace(place_at(2), phase="finetune"), {})
    log.close()
    count = GlobalStep.after(read_metrics(tmp_path))
    assert count.at(1, "finetune", 3) == 8
