import io
import logging
from dataclasses import replace

import pytest
from doubles_records import place_at

from rloop.observe.console import Bar, Console, plain, warnings_shown

STEP = {
    "reward_mean": 0.4375,
    "groups_all_correct_frac": 0.125,
    "groups_mixed_frac": 0.5,
    "groups_all_wrong_frac": 0.375,
    "truncated_frac": 0.03,
    "completion_tokens_mean": 31.4,
    "entropy_mean": 0.8123,
    "grad_norm": 0.231,
    "gap_mean": 0.0012,
    "tokens_per_s": 812.3,
    "step_s": 12.34,
}
SUMS = {
    "sums/avg@8": 0.41,
    "sums/avg@8_low": 0.36,
    "sums/avg@8_high": 0.46,
    "sums/pass@1": 0.41,
    "sums/pass@8": 0.7,
    "sums/pass@8_low": 0.65,
    "sums/pass@8_high": 0.75,
    "sums/pass@8_diff": 0.1,
    "sums/pass@8_diff_low": -0.02,
    "sums/pass@8_diff_high": 0.22,
    "sums/problems_count": 64,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def pipe() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(pipe) -> Console:
    return Console(pipe, results=pipe)


def test_a_step_is_one_line_under_its_columns(console, pipe):
    console.step(place_at(7), STEP)
    assert pipe.getvalue().splitlines() == [
        "step reward solved mixed wrong trunc tokens entropy    grad    gap  tok/s     s",
        "   7  0.438   0.12  0.50  0.38  0.03     31   0.812   0.231 0.0012    812  12.3",
    ]


def test_rewards_of_the_recipe_are_columns_behind_the_others(console, pipe):
    console.step(place_at(7), STEP | {"reward_accuracy_mean": 0.5, "reward_brief_mean": -0.25})
    title, line = pipe.getvalue().splitlines()
    assert title.endswith("     s accuracy brief")
    assert line.endswith("  12.3    0.500 -2e-01")


def test_columns_hold_still_whatever_the_numbers(console, pipe):
    console.step(place_at(7), STEP)
    odd = {"grad_norm": 123456.0, "entropy_mean": float("nan"), "gap_mean": 2e-7}
    console.step(place_at(8), STEP | odd)
    console.step(place_at(9), {})
    title, first, second, third = pipe.getvalue().splitlines()
    assert {len(title), len(first), len(second), len(third)} == {len(title)}
    assert len(title) <= 80
    assert "  1e+05  2e-07 " in second
    assert "    nan " in second
    assert third.split() == ["9", *"-" * 11]


def test_columns_are_named_again_after_other_text_and_many_lines(console, pipe):
    for step in range(1, 41):
        console.step(place_at(step), STEP)
        if step == 5:
            console.say("Something else.")
    lines = pipe.getvalue().splitlines()
    # 1 .. 5, the sentence, then 6 .. 35 (30 lines), then 36 .. 40
    titles = [number for number, line in enumerate(lines) if line.startswith("step ")]
    assert titles == [0, 7, 38]


def test_an_update_of_fine_tuning_says_of_how_many(console, pipe):
    place = replace(place_at(12), phase="finetune")
    metrics = {"loss_mean": 0.7123, "grad_norm": 1.5, "learning_rate": 1e-5}
    with console.phase(1, "finetune", 40, "update") as bar:
        bar.advance(40)
        console.step(place, metrics)
    assert pipe.getvalue().splitlines()[:3] == [
        "Iteration 1, finetune: 40 updates",
        "       step    loss    grad    rate",
        "      12/40  0.7123   1.500 1.00e-05",
    ]


def test_an_evaluation_shows_the_average_and_the_largest_k(console, pipe):
    console.step(place_at(12, phase="evaluate"), SUMS)
    assert pipe.getvalue().splitlines() == [
        "  explored-001, step 12",
        "  sums  avg@8 0.410 [0.360, 0.460]  pass@8 0.700 [0.650, 0.750]",
    ]


def test_the_final_table_compares_policies_under_each_other():
    rows = [
        {"policy": name, **{f"evaluate/{key}": value for key, value in metrics.items()}}
        for name, metrics in (
            ("base", {key: value for key, value in SUMS.items() if "_diff" not in key}),
            ("iter-001", SUMS),
        )
    ]
    progress, results = io.StringIO(), io.StringIO()
    Console(progress, results=results).final_table(rows)
    lines = results.getvalue().splitlines()
    assert progress.getvalue() == ""
    assert lines[0] == "task       policy     value [interval]       difference [interval]"
    assert lines[2:] == [
        "sums",
        "  avg@8    base       0.410 [0.360, 0.460]",
        "           iter-001   0.410 [0.360, 0.460]",
        "  pass@8   base       0.700 [0.650, 0.750]",
        "           iter-001   0.700 [0.650, 0.750]   +0.100 [-0.020, +0.220]",
        "Differences are paired, problem by problem, with base.",
    ]


def test_a_cold_start_is_what_iterations_are_compared_with(console, pipe):
    row = {f"evaluate/{key}": value for key, value in SUMS.items()}
    console.final_table([{"policy": "base", **row}, {"policy": "coldstart", **row}])
    assert "with coldstart; those of the cold start itself with the base." in pipe.getvalue()


def test_what_is_no_terminal_gets_plain_lines(console, pipe):
    console.header({"model": "SmolLM2", "device": "cpu"})
    with console.phase(1, "explore", 3, "step") as bar:
        for step in (1, 2):
            bar.advance(step, tokens=1000 * step)
    console.warn("x" * 200)
    assert pipe.getvalue().splitlines() == [
        "model   SmolLM2",
        "device  cpu",
        "Iteration 1, explore: 3 steps",
        "Iteration 1, explore: 2 of 3 steps in 0:00, 2,000 tokens",
        "Warning: " + "x" * 200,
    ]


def test_text_of_others_cannot_steer_the_terminal(console, pipe):
    console.say("[bold]a[/bold] \x1b[31mred\r\x07\u202eback :smile:\tb")
    assert pipe.getvalue() == "[bold]a[/bold] [31mredback :smile: b\n"


def test_plain_keeps_letters_of_any_script_and_line_breaks():
    assert plain("\u03c0 \u2248 3\n\u4e2d\u6587") == "\u03c0 \u2248 3\n\u4e2d\u6587"


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    console = Console(terminal, results=io.StringIO())
    with console.phase(1, "explore", 4, "step") as outer:
        outer.advance(1, tokens=500)
        with console.phase(1, "evaluate", 2, "problem") as inner:
            inner.advance(2)
        console.step(place_at(1), STEP)
    shown = terminal.getvalue()
    assert "1 explore" in shown
    assert "1/4 steps" in shown
    assert "\x1b[?25h" in shown  # the cursor is shown again
    assert shown.rstrip().endswith("1 of 4 steps in 0:00, 500 tokens")


def test_a_failing_phase_takes_its_bar_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    console = Console(terminal, results=io.StringIO())
    with pytest.raises(ZeroDivisionError), console.phase(1, "explore", 4, "step") as bar:
        bar.advance(1 // 0)
    assert "\x1b[?25h" in terminal.getvalue()
    with console.phase(1, "explore", 4, "step") as bar:
        bar.advance(4)


def test_a_bar_knows_its_rates():
    times = iter([0.0, 10.0, 10.0])
    bar = Bar(4, clock=lambda: next(times))
    bar.advance(1, tokens=500)
    # 500 tokens in 10 s; one unit in 10 s, three to go
    assert bar.tokens_per_s == 50.0
    assert bar.seconds_left == 30.0


def test_units_that_are_worked_on_together_say_no_rate_before_as_many_are_done():
    now = [0.0]
    bar = Bar(40, together=8, clock=lambda: now[0])
    now[0] = 10.0
    for _ in range(7):
        bar.count(100)
    assert bar.seconds_left is None
    bar.count(100)
    assert bar.seconds_left == 40.0  # 8 in 10 s, 32 to go


def test_a_resumed_bar_counts_its_rates_from_where_it_began():
    times = iter([0.0, 5.0, 5.0, 7.0, 7.0])
    bar = Bar(100, clock=lambda: next(times))
    bar.advance(50, tokens=50_000)
    assert (bar.tokens_per_s, bar.seconds_left) == (None, None)
    bar.advance(51, tokens=51_000)
    # 1000 tokens and one unit in the 2 s since the first news, 49 to go
    assert (bar.tokens_per_s, bar.seconds_left) == (500.0, 98.0)


def test_a_long_phase_says_how_far_it_is_when_nothing_else_was_written_for_half_a_minute(pipe):
    now = [0.0]
    console = Console(pipe, results=pipe, clock=lambda: now[0])
    with console.phase(0, "evaluate", 40, "problem") as bar:
        # A problem every 8 s: lines come with the 4th (32 s after the title) and the 8th, and 30 s
        # are counted from the sentence at 64 s + 16 s on. At the 4th 36 problems are left, 288 s.
        for done in range(1, 12):
            now[0] += 8
            bar.advance(done)
            if done == 10:
                console.say("Something else.")
        now[0] += 40
        bar.advance(40)
    assert pipe.getvalue().splitlines() == [
        "Iteration 0, evaluate: 40 problems",
        "Iteration 0, evaluate: 4 of 40 problems in 0:32, 4:48 left",
        "Iteration 0, evaluate: 8 of 40 problems in 1:04, 4:16 left",
        "Something else.",
        "Iteration 0, evaluate: done in 2:08",
    ]


def test_a_terminal_has_its_bar_and_no_lines_of_progress():
    now, screen = [0.0], Terminal()
    console = Console(screen, results=screen, clock=lambda: now[0])
    with console.phase(0, "evaluate", 40, "problem") as bar:
        now[0] += 100
        bar.advance(4)
    assert screen.getvalue().count(" of 40 problems in 1:40") == 1  # the last line of the phase


def test_a_warning_of_rloop_is_a_line_of_the_console():
    screen = io.StringIO()
    with warnings_shown(Console(screen)):
        logging.getLogger("rloop.engines").warning("Out of memory with %s=%d", "a.b", 8)
        logging.getLogger("rloop.engines").info("not worth a line")
        logging.getLogger("other").error("not ours")
    assert screen.getvalue() == "Warning: Out of memory with a.b=8\n"


def test_nothing_is_shown_after_a_block_that_failed():
    screen = io.StringIO()
    with pytest.raises(KeyError), warnings_shown(Console(screen)):
        raise KeyError("x")
    logging.getLogger("rloop").warning("later")
    assert screen.getvalue() == ""
