import json

from rloop.report.run_record import read_run
from rloop.report.timeline import Span, Timeline


def test_explorations_lie_end_to_end(finished_run) -> None:
    timeline = Timeline(read_run(finished_run))
    assert timeline.spans == [Span(1, 0, 20), Span(2, 20, 40)]
    rows = timeline.explore_rows(["reward_mean"])
    assert [(row["x"], row["iteration"], row["step"]) for row in rows][18:22] == [
        (19, 1, 19),
        (20, 1, 20),
        (21, 2, 1),
        (22, 2, 2),
    ]


def test_each_exploration_is_drawn_from_the_policy_it_began_at(finished_run) -> None:
    rows = Timeline(read_run(finished_run)).evaluation_rows("sums", ["avg@8"])
    drawn: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        drawn.setdefault(row["line"], []).append((row["x"], row["policy"]))
    assert drawn["kept"] == [(0, "base"), (20, "iter-001"), (40, "iter-002")]
    assert drawn["RL 1"] == [(0, "base"), *((x, "explored-001") for x in (5, 10, 15, 20))]
    assert drawn["RL 2"] == [(20, "iter-001"), *((x, "explored-002") for x in (25, 30, 35, 40))]


def test_plain_rl_goes_on_with_the_explored_policy(build_run) -> None:
    run_dir = build_run()
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps(config | {"expert": None, "finetune": None}))
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"iter-' not in line]
    (run_dir / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    rows = Timeline(read_run(run_dir)).evaluation_rows("sums", ["avg@8"])
    kept = [(row["x"], row["policy"]) for row in rows if row["line"] == "kept"]
    assert kept == [(0, "base"), (20, "explored-001"), (40, "explored-002")]
    assert next(row["policy"] for row in rows if row["line"] == "RL 2") == "explored-001"


def test_an_empty_run_has_an_empty_axis(build_run) -> None:
    run_dir = build_run()
    (run_dir / "metrics.jsonl").write_text("")
    timeline = Timeline(read_run(run_dir))
    assert (timeline.spans, timeline.end, timeline.explore_rows(["reward_mean"])) == ([], 0, [])
