"""Alarms: each at its threshold, once, and the same after a resumption."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from doubles_records import place_at
from doubles_runs import toy_recipe

from rloop.loop.alarms import QUIET_STEPS, Alarms
from rloop.observe.console import Console
from rloop.observe.run_log import RunLog, read_metrics

START = {
    "entropy_mean": 1.0,
    "completion_tokens_mean": 12.0,
    "reward_mean": 0.25,
    "groups_signal_frac": 0.5,
    "grad_norm": 2.0,
}


class Heard:
    """Alarms on a run directory, and what they said."""

    def __init__(self, folder: Path, log: RunLog, **changes: Any) -> None:
        self.folder = folder
        self.screen = io.StringIO()
        self.log = log
        self.alarms = Alarms(toy_recipe(folder, **changes), self.log, Console(self.screen))

    def steps(self, *steps: dict[str, float], first: int = 1) -> list[tuple[int, str]]:
        """See the steps, each over the numbers of a healthy one; return what sounded so far."""
        for number, changed in enumerate(steps, start=first):
            numbers = START | changed
            self.log.metrics(place_at(number), numbers)
            self.alarms.step(place_at(number), numbers)
        return [(event["step"], event["what"]) for event in self.events()]

    def events(self) -> list[dict[str, Any]]:
        lines = (self.folder / "run/events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


Listen = Callable[..., Heard]


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Listen]:
    """Begin alarms in a folder of their own; their logs are closed in the end."""
    with ExitStack() as stack:

        def begin(name: str = "one", **changes: Any) -> Heard:
            folder = tmp_path / name
            folder.mkdir()
            return Heard(folder, stack.enter_context(closing(RunLog(folder / "run"))), **changes)

        yield begin


@pytest.mark.parametrize(
    ("what", "below", "above"),
    [
        # a tenth of the first steps' 1.0, and three times it
        ("entropy_collapse", {"entropy_mean": 0.11}, {"entropy_mean": 0.09}),
        ("entropy_explosion", {"entropy_mean": 2.9}, {"entropy_mean": 3.1}),
        ("length_limit", {"truncated_frac": 0.5}, {"truncated_frac": 0.51}),
        # a quarter of 12 tokens is 3
        ("length_collapse", {"completion_tokens_mean": 3.1}, {"completion_tokens_mean": 2.9}),
        # ten times the median, 2
        ("gradient_spike", {"grad_norm": 19.0}, {"grad_norm": 21.0}),
        ("logprob_gap", {"gap_mean": 0.09}, {"gap_mean": 0.11}),
        ("clipping", {"clip_frac": 0.5}, {"clip_frac": 0.51}),
        # half of tasks.max_error_frac, 0.1
        ("verdict_errors", {"verdict_error_frac": 0.05}, {"verdict_error_frac": 0.06}),
        ("nonfinite", {"skipped_updates_count": 0.0}, {"skipped_updates_count": 1.0}),
    ],
)
def test_an_alarm_sounds_beyond_its_threshold_only(
    listen: Listen, what: str, below: dict[str, float], above: dict[str, float]
):
    heard = listen()
    assert heard.steps({}, {}, {}, below, {}) == []
    assert heard.steps(above, first=6) == [(6, what)]


def test_a_healthy_run_is_silent(listen: Listen):
    # entropy halves, completions become terse and right, the gradient grows threefold
    steps = [
        {
            "entropy_mean": 1.0 - 0.1 * n,
            "completion_tokens_mean": 12.0 - 2 * n,
            "reward_mean": 0.3 + 0.1 * n,
            "grad_norm": 2.0 + n,
            "gap_mean": 0.03,
        }
        for n in range(6)
    ]
    assert listen().steps(*steps) == []


def test_groups_without_a_signal_sound_at_the_third_step(listen: Listen):
    silent = {"groups_signal_frac": 0.0}
    heard = listen()
    assert heard.steps({}, silent, silent, {}, silent, silent) == []
    assert heard.steps(silent, first=7) == [(7, "no_signal")]


def test_a_frozen_policy_is_not_expected_to_have_a_signal(listen: Listen):
    silent = {"groups_signal_frac": 0.0}
    heard = listen(explore__optimizer={"learning_rate": 0.0})
    assert heard.steps(silent, silent, silent, silent) == []


def test_an_alarm_sounds_once_and_again_only_after_it_was_quiet(listen: Listen):
    heard = listen()
    bad = {"gap_mean": 0.2}
    assert heard.steps({}, bad, bad, {}, bad) == [(2, "logprob_gap")]
    # it held last at step 5: steps 6 to 15 are quiet, so at 16 it is new
    quiet: list[dict[str, float]] = [{}] * QUIET_STEPS
    assert heard.steps(*quiet, bad, first=6) == [(2, "logprob_gap"), (16, "logprob_gap")]


def test_an_alarm_is_a_sentence_on_the_console_and_an_event_with_its_numbers(listen: Listen):
    heard = listen()
    heard.steps({}, {"entropy_mean": 0.05})
    (event,) = heard.events()
    assert heard.screen.getvalue() == (
        "Warning: step 2: entropy is 0.05 nats a token, under a tenth of the first steps' 1: the "
        "policy hardly explores any more.\n"
    )
    assert {k: v for k, v in event.items() if k not in ("start", "text")} == {
        **{"name": "alarm", "iteration": 1, "phase": "explore", "step": 2, "seconds": 0.0},
        **{"what": "entropy_collapse", "value": 0.05, "threshold": 0.1},
    }


def test_a_skipped_update_says_where_it_is_kept(listen: Listen):
    heard = listen()
    file = heard.folder / "run/nonfinite/001-explore-000001.safetensors"
    heard.alarms.step(place_at(1), {"skipped_updates_count": 1.0}, skipped=file)
    assert "; the batch is in nonfinite/001-explore-000001.safetensors." in heard.screen.getvalue()


def test_a_policy_far_from_the_base_is_named(listen: Listen):
    heard = listen()
    place = place_at(0, phase="evaluate", policy="iter-001")
    heard.alarms.evaluation(place, {"kl_base_mean": 0.9})
    heard.alarms.evaluation(place, {"kl_base_mean": 1.1})
    assert heard.screen.getvalue().startswith(
        "Warning: iter-001: KL from the loop's start is 1.10 nats"
    )


def test_values_that_are_not_finite_break_nothing(listen: Listen):
    heard = listen()
    odd = dict.fromkeys(("entropy_mean", "grad_norm", "gap_mean"), float("nan"))
    assert heard.steps(odd, odd, {"gap_mean": float("inf")}) == []


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_resumed_phase_hears_what_an_uninterrupted_one_hears(listen: Listen, cut: int):
    silent = {"groups_signal_frac": 0.0}
    steps: list[dict[str, float]] = [
        {},
        {"grad_norm": 3.0},
        {"gap_mean": 0.2},
        silent,
        silent,
        silent,
    ]
    steps += [{"gap_mean": 0.2}, {"grad_norm": 30.0}, {"entropy_mean": 0.05}]
    expected = listen("whole").steps(*steps)
    before, after = listen("before"), listen("after")
    before.steps(*steps[:cut])
    after.alarms.recall(read_metrics(before.folder / "run"), place_at())
    found = after.steps(*steps[cut:], first=cut + 1) if cut < len(steps) else []
    assert found == [(step, what) for step, what in expected if step > cut]
    assert len(expected) == 4
