"""What the benchmark makes of measurements: limits, goals and the time of a run, by hand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from contenders.spans import SET_UP, WEIGHTS, Span, Spans
from goals import GOALS, judge
from limits import limit_s
from work_sets import WORK_SETS, matching

MACHINE = {
    "layer_weights": 90,
    "head_weights": 10,
    "weight_bytes": 200,
    "token_bytes": 4,
    "flops_per_s": 1000.0,
    "square_flops_per_s": 2000.0,
    "bytes_per_s": 100.0,
}


def work(*, on_gpu: bool, **shape):
    prompts = [{"ids": [0] * 5}, {"ids": [0] * 7}]
    shape = {"problems": 2, "group_size": 2, "tokens": 3, "rows": 4, **shape}
    return {"shape": shape, "prompts": prompts, "machine": MACHINE, "on_gpu": on_gpu}


def test_products_limit_sampling_on_a_cpu():
    # 12 tokens through 100 weights, 12 prompt tokens through 90: 2 x (1200 + 1080) / 1000
    assert limit_s("sample", work(on_gpu=False)) == pytest.approx(4.56)
    # and the first group alone learns: 6 x (6 x 100 + 5 x 90) / 1000
    assert limit_s("step", work(on_gpu=False)) == pytest.approx(4.56 + 6.3)


def test_bytes_limit_sampling_on_a_gpu():
    # 3 steps read 200 bytes of weights; the rows of a prompt of 5 have 5, 6 and 7 tokens, of 7
    # have 7, 8 and 9: 2 x (18 + 24) tokens of 4 bytes
    assert limit_s("sample", work(on_gpu=True)) == pytest.approx((600 + 336) / 100)
    # with two rows in flight the weights are read twice as often
    assert limit_s("sample", work(on_gpu=True, rows=2)) == pytest.approx((1200 + 336) / 100)
    assert limit_s("step", work(on_gpu=True)) == pytest.approx(9.36 + 6300 / 2000)


def test_an_epoch_is_limited_by_its_products():
    one = work(on_gpu=True, trajectories=3, lengths=[10, 20, 30])
    # prompts in turn, 5 + 7 + 5: 6 x (60 x 100 + 17 x 90) / 2000
    assert limit_s("tune", one) == pytest.approx(22.59)
    assert limit_s("other", {}) is None


def found(**parts):
    return {
        "contenders": {
            "rloop": {"peak_bytes": 1e9, "check": 0, "parts": parts["rloop"]},
            "trl": {"peak_bytes": 2e9, "check": 0, "parts": parts["trl"]},
        }
    }


def test_goals_are_judged_by_what_was_measured_and_absent_peers_are_not():
    one = found(rloop={"step": {"times_rloop": 1.0}}, trl={"step": {"times_rloop": 7.0}})
    speed, memory = judge("S2", one, is_full=False)
    assert (speed["found"], speed["wanted"], speed["is_met"]) == (7.0, 6, True)
    assert (memory["found"], memory["is_met"]) == (0.5, False)
    del one["contenders"]["trl"]
    assert [goal["is_met"] for goal in judge("S2", one, is_full=False)] == [None, None]


def test_a_goal_of_the_full_size_is_left_out_of_others():
    parts = {"append": {"rate_per_s": 60_000.0}, "select": {"median_s": 6.0}}
    one = found(rloop=parts, trl=parts)
    assert [goal["is_met"] for goal in judge("S5", one, is_full=True)] == [True, False, True]
    assert len(judge("S5", one, is_full=False)) == 1


def test_goals_name_work_sets_and_a_beginning_names_several():
    assert set(GOALS) <= set(WORK_SETS)
    assert matching("s4") == ["S4a", "S4b", "S4c"]
    assert matching("O2") == ["O2"]


def test_a_phase_change_counts_what_lies_between_but_not_weights():
    spans = Spans()
    spans.done = [
        Span("explore", 0.0, 2.0),
        Span("explore", 2.5, 4.0),
        Span(WEIGHTS, 4.5, 7.5),
        Span(SET_UP, 7.5, 7.75),
        Span("finetune", 8.0, 9.0),
    ]
    assert spans.phase_changes() == [("explore", "finetune", 1.0)]
    assert spans.total("explore", "finetune") == 4.5
    assert spans.total(WEIGHTS) == 3.0


def test_spans_inside_another_are_a_part_of_it():
    spans = Spans()
    load = spans.around(WEIGHTS, lambda: 1)

    def steps():
        yield load()
        yield load()

    made = spans.around_each("explore", steps)()
    assert [next(made), load(), *made] == [1, 1, 1]
    # two steps and the end of the generator, and the load between the steps
    assert [span.kind for span in spans.done] == ["explore", WEIGHTS, "explore", "explore"]
