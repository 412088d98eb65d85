import logging
import sys
from types import SimpleNamespace

import pytest
from doubles_records import place_at

from rloop.errors import ConfigError
from rloop.observe import sinks
from rloop.observe.run_log import RunLog
from rloop.observe.sinks import REST_S, Guarded, open_sinks


class Recorder:
    """A tracker that keeps what it gets, and refuses while `broken` says why."""

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.broken: Exception | None = None
        self.num_tries = 0

    def write(self, step, values, completions=()):
        self.num_tries += 1
        if self.broken:
            raise self.broken
        self.points.append((step, dict(values)))

    def close(self):
        if self.broken:
            raise self.broken


def test_a_tracker_that_fails_is_warned_of_once_left_alone_for_a_while_and_tried_again(caplog):
    now, tracker = [0.0], Recorder()
    guarded = Guarded("mlflow", tracker, clock=lambda: now[0])
    guarded.write(1, {"explore/reward_mean": 0.25})
    tracker.broken = OSError(28, "No space left on device")
    with caplog.at_level(logging.WARNING):
        for step, now[0] in ((2, 1.0), (3, 2.0), (4, REST_S), (5, 1.0 + REST_S), (6, 70.0)):
            guarded.write(step, {"explore/reward_mean": 0.5})
    # tried at steps 1 and 2, let be until 61 s, tried at step 5, let be again
    assert tracker.num_tries == 3
    assert [record.getMessage() for record in caplog.records] == [
        "mlflow failed to log metrics at step 2 ([Errno 28] No space left on device). The run "
        "continues; metrics.jsonl has every number."
    ]
    tracker.broken, now[0] = None, 1.0 + 2 * REST_S
    guarded.write(7, {"explore/reward_mean": 0.75})
    assert [step for step, _ in tracker.points] == [1, 7]


def test_a_tracker_that_fails_at_its_end_is_warned_of_and_no_more(caplog):
    tracker = Recorder()
    tracker.broken = RuntimeError()
    Guarded("wandb", tracker).close()
    assert [record.getMessage() for record in caplog.records] == [
        "wandb failed to close (RuntimeError). The run continues; metrics.jsonl has every number."
    ]


def test_ctrl_c_inside_a_tracker_is_still_ctrl_c():
    class Interrupted(Recorder):
        def write(self, step, values, completions=()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded("wandb", Interrupted()).write(1, {})


def test_a_failing_tracker_costs_the_run_nothing(tmp_path, monkeypatch):
    tracker = Recorder()
    tracker.broken = TimeoutError("the server is away")
    monkeypatch.setattr("rloop.observe.run_log.open_sinks", lambda *_: [Guarded("mlflow", tracker)])
    log = RunLog(tmp_path, ["mlflow"])
    log.metrics(place_at(1), {"reward_mean": 0.25})
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"iteration":1,"phase":"explore","step":1,"policy":"explored-001","policy_kind":"explored",'
        '"explore/reward_mean":0.25}\n'
    )


def test_lines_that_a_resumed_run_writes_again_are_not_sent_again(tmp_path, monkeypatch):
    tracker = Recorder()
    monkeypatch.setattr("rloop.observe.run_log.open_sinks", lambda *_: [tracker])
    log = RunLog(tmp_path, ["tensorboard"])
    log.metrics(place_at(1), {"reward_mean": 0.25})
    position = log.position()
    log.metrics(place_at(2), {"reward_mean": 0.5})
    log.metrics(place_at(2, phase="evaluate"), {"sums/avg@8": 0.5})
    log.close()
    log = RunLog(tmp_path, ["tensorboard"])
    log.truncate(position)
    log.metrics(place_at(2), {"reward_mean": 0.5})
    log.metrics(place_at(2, phase="evaluate"), {"sums/avg@8": 0.5})
    log.metrics(place_at(3), {"reward_mean": 0.75})
    log.close()
    assert tracker.points == [
        (1, {"explore/reward_mean": 0.25}),
        (2, {"explore/reward_mean": 0.5}),
        (2, {"evaluate/sums/avg@8": 0.5}),
        (3, {"explore/reward_mean": 0.75}),
    ]


def test_a_tracker_that_does_not_start_says_why_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(ConfigError) as caught:
        open_sinks(["wandb"], tmp_path)
    assert str(caught.value) == (
        "sinks: wandb did not start (No API key configured). Log in with `wandb login`, or set "
        "WANDB_MODE=offline."
    )


def refuse(**_):
    assert not sys.stdin.isatty(), "W&B would ask for an account"
    raise RuntimeError("No API key configured. Use `wandb login` to log in.\nMore.")


def test_wandb_finds_no_terminal_to_ask_at(tmp_path, monkeypatch):
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(ConfigError, match="No API key"):
        open_sinks(["wandb"], tmp_path)
    assert sys.stdin is terminal


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio", "mlflow"])
def test_a_missing_package_is_named_with_its_install(name, tmp_path, monkeypatch):
    # None in sys.modules is Python's own way of saying that a package is not there.
    monkeypatch.setitem(sys.modules, name, None)
    for module in [key for key in sys.modules if key.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ConfigError) as caught:
        open_sinks([name], tmp_path)
    assert f'pip install "rloop-rl[{name}]"' in str(caught.value)
    assert name in str(caught.value)


def test_no_sinks_leave_no_trace(tmp_path):
    assert open_sinks([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_trackers_id_stays_and_one_that_was_never_written_is_made_again(tmp_path):
    (tmp_path / "sink_id").touch()  # as a killed process may leave it
    made = sinks._sink_id(tmp_path)
    assert len(made) == 32
    assert sinks._sink_id(tmp_path) == made
