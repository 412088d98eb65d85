"""The heartbeat: a file that says where a run stands, and a word when it stands still."""

import json
import os
import re
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from doubles_runs import begin, toy_recipe, watched

from rloop.loop import heartbeat
from rloop.loop.heartbeat import Heartbeat
from rloop.types import Place, Problem, Verdict

PLACE = Place(run="toy", seed=0, iteration=2, phase="explore", step=7, policy="explored-002")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "TICK_S", 0.01)
    monkeypatch.setattr(heartbeat, "LEAST_S", 0.2)
    monkeypatch.setattr(heartbeat, "TIMES_LONGEST", 0)


def wait_for(holds: Any) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_file_says_where_the_run_stands_and_goes_with_it(tmp_path: Path):
    path = tmp_path / "heartbeat.json"
    with Heartbeat(tmp_path, print) as pulse:
        wait_for(path.exists)
        assert json.loads(path.read_text())["phase"] == "prepare"
        pulse.beat(PLACE)
        wait_for(lambda: json.loads(path.read_text())["step"] == 7)
        found = json.loads(path.read_text())
    assert found.pop("time") == pytest.approx(time.time(), abs=60)
    assert found == {"pid": os.getpid(), "iteration": 2, "phase": "explore", "step": 7}
    assert not path.exists()


def test_standing_still_is_said_with_growing_pauses_and_every_threads_stack(tmp_path: Path):
    said: list[tuple[float, str]] = []
    with Heartbeat(tmp_path, lambda text: said.append((time.monotonic(), text))) as pulse:
        pulse.beat(PLACE)
        began = time.monotonic()
        wait_for(lambda: len(said) == 3)
    assert "in explore of iteration 2, step 7." in said[0][1]
    # Silence of at least 0.2 s, then twice what it was each time: 0.2, 0.4, 0.8.
    for number, (at, text) in enumerate(said):
        assert at - began >= 0.2 * 2**number - 0.05
        stacks = tmp_path / "stalls" / f"stall-{number + 1}.txt"
        assert str(stacks) in text
    stacks_text = (tmp_path / "stalls" / "stall-1.txt").read_text()
    assert "No progress for" in stacks_text
    assert "in wait_for" in stacks_text  # this test's own thread
    assert "in _watch" in stacks_text


def test_progress_ends_the_silence(tmp_path: Path):
    said: list[str] = []
    with Heartbeat(tmp_path, said.append) as pulse:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pulse.beat()
            time.sleep(0.02)
    assert [text for text in said if "No progress" in text] == []


def test_a_pause_as_long_as_earlier_ones_is_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(heartbeat, "LEAST_S", 0.0)
    monkeypatch.setattr(heartbeat, "TIMES_LONGEST", 100)
    said: list[str] = []
    with Heartbeat(tmp_path, said.append) as pulse:
        time.sleep(0.1)  # the longest so far: not before 100 x 0.1 s from here on
        pulse.beat()
        said.clear()
        time.sleep(0.3)
    assert said == []


def test_completions_passed_to_the_verifiers_are_progress(tmp_path: Path):
    class Never:
        def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
            return Future()

    said: list[str] = []
    problem = Problem(problem_id="a/0", task="a", question="1+1=", answer="2", verifier="numeric")
    with Heartbeat(tmp_path, said.append) as pulse:
        verify, end = pulse.watching(Never()), time.monotonic() + 0.5
        while time.monotonic() < end:
            verify.submit(problem, "2")
            time.sleep(0.02)
    assert said == []


def test_a_full_disk_is_not_the_end(tmp_path: Path):
    said: list[str] = []
    with Heartbeat(tmp_path / "gone", said.append):
        wait_for(lambda: said)
    assert "could not be written (No such file or directory)" in said[0]


def test_a_run_whose_engine_hangs_says_where(tmp_path: Path, capsys: Any):
    stalls, where = tmp_path / "run" / "stalls", "evaluate of iteration 1, step 0."

    def has_told() -> bool:
        return any(where in path.read_text() for path in stalls.glob("*.txt"))

    def hang(at: tuple[str, int, int]) -> None:
        """Come back when the run has told of the silence."""
        if at == ("evaluate", 1, 0):
            wait_for(has_told)

    code, run_dir = begin(toy_recipe(tmp_path, iterations=1), tmp_path, watched(hang))
    assert code == 0
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(rf"Warning: No progress for \d+ s in {where}", said)
    assert not (run_dir / "heartbeat.json").exists()
