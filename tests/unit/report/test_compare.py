"""Methods compared: grouping, numbers worked by hand, warnings, the table and the page."""

import json
import shutil
from pathlib import Path

import duckdb
import pytest
from doubles_comparison import write_method_run

from rloop.errors import ConfigError, StoreError
from rloop.report.compare import (
    COLUMNS,
    Comparison,
    compare_runs,
    comparison_json,
    page_path,
    table_rows,
    write_comparison,
)
from rloop.report.compare_checks import fairness_warnings
from rloop.report.compare_runs import choose_reference, find_runs, group_runs, read_compared

RL = {"coldstart": [0, 2, 4, 8], "explored-001@4": [1, 3, 4, 8], "explored-001@8": [0, 4, 4, 8]}
RLOOP = {"coldstart": [0, 2, 4, 8], "iter-001": [1, 2, 5, 8], "iter-002": [2, 6, 4, 8]}
HOSTILE = "</script><script>window.pwned = 1</script>\u202e\x1b[31m"


def warned(*paths: Path) -> tuple[str, ...]:
    """Return what makes the comparison of these runs unfair, without its numbers and charts."""
    runs = [read_compared(path)[0] for path in paths]
    return tuple(fairness_warnings(group_runs([run for run in runs if run is not None])))


def labels(*paths: Path) -> list[str]:
    """Return the labels of the methods of these runs."""
    runs = [read_compared(path)[0] for path in paths]
    return [group.label for group in group_runs([run for run in runs if run is not None])]


def better(counts, more=1):
    return {label: [min(8, c + more) for c in found] for label, found in counts.items()}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """Two seeds of RLoop and of plain RL; the second seed answers one sample more of each."""
    folder: Path = tmp_path_factory.mktemp("runs") / "sweep"
    for seed in (0, 1):
        write_method_run(folder, "rl", seed, better(RL, seed))
        write_method_run(folder, "rloop", seed, better(RLOOP, seed))
    return folder


@pytest.fixture(scope="module")
def found(sweep) -> Comparison:
    return compare_runs([sweep])


def metric(found, label, name):
    (task,) = found.tasks
    (method,) = [method for method in task.methods if method.group.label == label]
    return method.metrics[name]


def test_a_folder_stands_for_its_runs_and_methods_come_in_their_order(found):
    assert [(g.label, g.seeds) for g in found.groups] == [("RLoop", (0, 1)), ("Plain RL", (0, 1))]
    assert found.reference == "Plain RL"
    (warning,) = found.warnings
    assert warning.startswith("RLoop, Plain RL: two seeds")
    assert "cover seeds and problems" in found.covers


def test_means_and_differences_are_those_worked_by_hand(found):
    rloop = metric(found, "RLoop", "avg@8")
    # last policies: (2+6+4+8)/32 = .625 and (3+7+5+8)/32 = .71875
    assert rloop.by_run == pytest.approx((0.625, 0.71875))
    assert rloop.mean.value == pytest.approx(0.671875)
    plain = metric(found, "Plain RL", "avg@8")
    # (0+4+4+8)/32 = .5 and (1+5+5+8)/32 = .59375
    assert plain.by_run == pytest.approx((0.5, 0.59375))
    assert rloop.difference is not None
    assert rloop.difference.value == pytest.approx(0.125)
    # paired: 2/8, 2/8, 0, 0 for both seeds; seeds add nothing, nor is there noise; sd of these
    # .1443376 / 2 = .0721688; t(3) = 3.182446: half = .229673
    assert rloop.difference.low == pytest.approx(0.125 - 0.229673, abs=1e-5)
    assert plain.difference is None
    # change of seed 0: .5 - (0+2+4+8)/32 = .0625; of seed 1: 19/32 - 17/32 = .0625
    assert plain.change is not None
    assert plain.change.value == pytest.approx(0.0625)


def test_pass_at_k_is_what_duckdb_finds_in_the_files(sweep, found):
    rloop = metric(found, "RLoop", "pass@8")
    files = sweep / "rloop-seed-0/trajectories/**/*.parquet"
    solved = (
        duckdb.connect()
        .execute(
            "select avg(any_right) from (select max(correct::int) as any_right "
            f"from '{files}' where policy = 'iter-002' group by problem_id)"
        )
        .fetchall()
    )
    assert rloop.by_run[0] == pytest.approx(solved[0][0])


def test_one_seed_is_said_to_cover_problems_only(sweep):
    found = compare_runs([sweep / "rl-seed-0", sweep / "rloop-seed-0"])
    assert "problems only" in found.covers
    mixed = compare_runs([sweep / "rl-seed-0", sweep / "rloop-seed-0", sweep / "rloop-seed-1"])
    assert "those of Plain RL, with one seed, and differences with it, problems" in mixed.covers
    assert mixed.warnings[1:] == ("Seeds differ: RLoop: 0, 1; Plain RL: 0.",)


def test_the_reference_is_chosen_by_method_or_run(found):
    assert choose_reference(found.groups, "rloop").label == "RLoop"
    assert choose_reference(found.groups, "rloop-seed-1").label == "RLoop"
    assert choose_reference(found.groups, None).label == "Plain RL"
    assert choose_reference(found.groups, "rl").label == "Plain RL"
    with pytest.raises(ConfigError, match=r"'ppo' .* 'RLoop', 'Plain RL"):
        choose_reference(found.groups, "ppo")


def changed_copy(source: Path, target: Path, **values: object) -> Path:
    """Copy a run; dotted keys such as explore__clip_low change its recipe."""
    shutil.copytree(source, target)
    path = target / "config.json"
    config = json.loads(path.read_text())
    for key, value in values.items():
        *parents, last = key.split("__")
        place = config
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(config))
    return target


def test_one_method_with_two_recipes_is_told_apart_by_the_keys_that_differ(sweep, tmp_path):
    other = changed_copy(sweep / "rl-seed-0", tmp_path / "other", explore__clip_low=0.1)
    assert labels(sweep / "rl-seed-0", other) == [
        "Plain RL (explore.clip_low=0.2)",
        "Plain RL (explore.clip_low=0.1)",
    ]


def test_a_rule_on_held_out_problems_is_named_without_what_both_measure(sweep, tmp_path):
    rule = changed_copy(
        sweep / "rl-seed-0", tmp_path / "rule", explore__early_stop__pass_at_k_falls=2
    )
    key = "explore.early_stop.pass_at_k_falls"
    expected = [f"Plain RL ({key}={value})" for value in ("null", "2")]
    assert labels(sweep / "rl-seed-0", rule) == expected


def test_name_seed_and_trackers_make_no_other_method(sweep, tmp_path):
    other = changed_copy(
        sweep / "rl-seed-1", tmp_path / "other", name="x", seed=5, sinks=["tensorboard"]
    )
    assert labels(sweep / "rl-seed-0", other) == ["Plain RL"]


def test_a_run_named_twice_counts_once_and_a_copy_is_warned_of(sweep, tmp_path):
    run = sweep / "rl-seed-0"
    assert len(find_runs([run, run, sweep])) == 4
    (warning,) = warned(run, changed_copy(run, tmp_path / "rl-seed-0"))
    assert "Plain RL has seed 0 more than once" in warning


def test_budgets_that_differ_by_more_than_5_percent_are_warned_of(sweep, tmp_path):
    for tokens, is_warned in ((105, False), (106, True)):
        run = write_method_run(tmp_path / str(tokens), "rloop", 0, RLOOP, tokens=tokens)
        expected = (
            "Budgets differ: RLoop sampled 6 % more tokens in RL than Plain RL (848 against 800 a "
            "run)."
        )
        assert warned(sweep / "rl-seed-0", run) == ((expected,) if is_warned else ())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("evaluate__samples", 4, "Samples per problem (n) differ: 4 in other; 8 in rl-seed-0."),
        ("evaluate__sampling__temperature", 0.6, "Sampling at evaluation differ:"),
        ("explore__sampling__top_p", 0.9, "Sampling in RL differ:"),
        (
            "policy__path",
            "random:llama-1x32",
            "Base policies differ: random:llama-1x32 in other; random",
        ),
        ("coldstart", None, "Cold starts differ:"),
        (
            "tasks__train",
            [{"source": "gsm8k"}],
            "Training tasks differ: gsm8k (all, seed 0) in other; sum",
        ),
    ],
)
def test_what_was_set_differently_is_warned_of(sweep, tmp_path, key, value, said):
    other = changed_copy(sweep / "rloop-seed-0", tmp_path / "other", **{key: value})
    (warning,) = warned(sweep / "rl-seed-0", other)
    assert warning.startswith(said)


@pytest.mark.parametrize(
    ("versions", "said"),
    [(("other", "numeric-1"), "Prompt templates"), (("t-1", "other"), "Verifier versions")],
)
def test_versions_in_the_store_that_differ_are_warned_of(sweep, tmp_path, versions, said):
    other = write_method_run(tmp_path, "rloop", 0, RLOOP, versions=versions)
    (warning,) = warned(sweep / "rl-seed-0", other)
    assert warning.startswith(f"{said} differ: ")
    assert "other in rloop-seed-0" in warning


def test_only_common_problems_are_compared_and_hardware_is_named(sweep, tmp_path):
    fewer = {label: counts[:3] for label, counts in RLOOP.items()}
    other = write_method_run(tmp_path, "rloop", 0, fewer)
    environment = {"machine": "aarch64", "cores": 8, "engine": {"device": "cuda"}}
    (other / "environment.json").write_text(json.dumps(environment))
    found = compare_runs([sweep / "rl-seed-0", other])
    hardware, problems = found.warnings
    assert hardware == (
        "Machines differ: cuda, aarch64, 8 in rloop-seed-0; cpu, x86_64, 2 in rl-seed-0."
    )
    assert "runs have 3, 4; the 3 " in problems
    # without the fourth problem: (0+4+4)/24
    assert metric(found, "Plain RL", "avg@8").mean.value == pytest.approx(8 / 24)


def test_runs_that_are_not_complete_are_left_out_and_named(sweep, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(sweep, folder)
    (folder / "rl-seed-1/manifest.json").write_text('{"version": 1, "phases": {}}')
    found = compare_runs([folder])
    assert [len(group.runs) for group in found.groups] == [2, 1]
    assert found.warnings[0].startswith("Left out: rl-seed-1 is not complete.")
    with pytest.raises(StoreError, match="rl-seed-1 is not complete"):
        compare_runs([folder / "rl-seed-1"])


def test_a_folder_without_runs_and_runs_with_nothing_in_common_are_refused(sweep, tmp_path):
    with pytest.raises(StoreError, match="is not a run directory"):
        compare_runs([tmp_path])
    other = write_method_run(tmp_path, "rloop", 0, RLOOP, task="others")
    with pytest.raises(StoreError, match=r"rl-seed-0 has sums-heldout; rloop-seed-0 has"):
        compare_runs([sweep / "rl-seed-0", other])
    shutil.rmtree(other / "trajectories")
    with pytest.raises(StoreError, match="no evaluation"):
        compare_runs([other])


def test_an_evaluation_of_a_runs_policy_has_that_runs_method_and_seed(sweep, tmp_path):
    folder = tmp_path / "runs"
    for seed in (0, 1):
        run = changed_copy(sweep / f"rloop-seed-{seed}", folder / f"rloop-seed-{seed}")
        (run / "policies/iter-002").mkdir(parents=True)
        found = changed_copy(
            run, folder / f"eval-{seed}", policy__path=str(run / "policies/iter-002"), seed=99
        )
        for name in ("recipe.yaml", "environment.json", "events.jsonl"):
            (found / name).unlink()
        (found / "manifest.json").write_text('{"version": 1, "phases": {"0/evaluation": {}}}')
        lines = (found / "metrics.jsonl").read_text().splitlines()
        kept = [line for line in lines if '"policy": "iter-002"' in line]
        (found / "metrics.jsonl").write_text(f"{kept[0]}\n")
        for other in ("iteration-0", "iteration-1"):
            shutil.rmtree(found / "trajectories" / other)
    both = compare_runs([folder / "eval-0", folder / "eval-1", sweep / "rl-seed-0"])
    assert [(g.label, g.seeds) for g in both.groups] == [
        ("RLoop, iter-002", (0, 1)),
        ("Plain RL", (0,)),
    ]
    assert both.reference == "Plain RL"
    mean = metric(both, "RLoop, iter-002", "avg@8")
    assert mean.mean.value == pytest.approx(0.671875)
    assert mean.change is None
    (folder / "eval-0/metrics.jsonl").write_text("")
    left = compare_runs([folder / "eval-0", folder / "eval-1"])
    assert left.warnings[0].startswith("Left out: eval-0 is not complete")


def test_the_largest_group_with_a_task_in_common_is_compared_and_the_others_are_named(
    sweep, tmp_path
):
    other = write_method_run(tmp_path, "raft", 0, RLOOP, task="others")
    found = compare_runs([other, sweep])
    assert [(g.label, g.seeds) for g in found.groups] == [("RLoop", (0, 1)), ("Plain RL", (0, 1))]
    assert "4 of 5 runs" in found.warnings[0]
    assert "raft-seed-0 (others)" in found.warnings[0]


def test_what_trains_nothing_makes_no_other_method_unless_training_ends_by_it(sweep, tmp_path):
    run = sweep / "rl-seed-1"
    measured = changed_copy(run, tmp_path / "a", evaluate__every=3, explore__checkpoint_every=2)
    assert labels(sweep / "rl-seed-0", measured) == ["Plain RL"]
    falls = {"explore__early_stop__pass_at_k_falls": 2}
    often = changed_copy(run, tmp_path / "b", evaluate__every=3, **falls)
    seldom = changed_copy(run, tmp_path / "c", evaluate__every=4, **falls)
    assert labels(often, seldom) == ["Plain RL (evaluate.every=3)", "Plain RL (evaluate.every=4)"]


def test_methods_with_another_n_have_no_difference_and_the_page_says_why(sweep, tmp_path):
    few = write_method_run(tmp_path, "rloop", 0, RLOOP, samples=16)
    found = compare_runs([sweep / "rl-seed-0", few])
    ours = metric(found, "RLoop", "pass@8")
    assert ours.difference is None
    assert ours.mean.value > 0
    assert [row[5] for row in table_rows(found) if row[2] == "RLoop"] == ["n differs"] * 6
    (reason,) = {record["not_compared"] for record in comparison_json(found)} - {None}
    assert reason.startswith("Not comparable: n differs (8 and 16 samples")
    page = write_comparison(found, tmp_path / "compare.html").read_text()
    assert "No verdict" in page
    assert reason in page
    assert "better</span>" not in page
    assert "worse</span>" not in page
    assert "excludes zero." not in page


def test_forgetting_is_counted_from_start_to_end_and_averaged_over_seeds(found):
    rows = {row["label"]: row for row in found.tasks[0].losses}
    plain = rows["Plain RL"]
    # seed 0: the start solves 3 of 4, all kept; explored-001@4 solved the first, the last does not:
    # ever-solved loss 1 of 4; seed 1 has one more right everywhere: nothing is ever unsolved
    assert plain["forgotten"] == ("0.0 %", "")
    # the first c members are right; seed 0: c = 2, 4, 8: both halves solve each; seed 1: c = 1, 3,
    # 5, 8: the odd members miss the first, of 7 halves that solve a problem one: mean 1/14
    assert plain["by_chance"] == ("7.1 %", "")
    assert plain["ever_lost"] == ("12.5 %", "0.0 % to 25.0 %")
    assert plain["num_checkpoints"] == "3"
    assert plain["verdict"].endswith("of 2 seeds")
    # RLoop's seed 0 solves the one problem that its start did not; seed 1 has none to learn
    assert rows["RLoop"]["learned"] == ("100.0 %", "")


def test_the_table_and_the_json_say_the_same(sweep, found):
    rows, records = table_rows(found), comparison_json(found)
    assert len(rows) == len(records) == 2 * 6  # methods x (avg, maj, pass@4, pass@8, 2 cover)
    assert len(rows[0]) == len(COLUMNS)
    for row, record in zip(rows, records, strict=True):
        assert row[:3] == (record["task"], record["metric"], record["method"])
        assert str(row[4]).startswith(f"{record['mean']:.3f} [{record['mean_low']:.3f}")
    assert json.loads(json.dumps(records))[0]["runs"].keys() == {
        str(sweep / "rloop-seed-0"),
        str(sweep / "rloop-seed-1"),
    }


def test_the_page_goes_where_it_is_told_and_only_to_html(sweep, tmp_path):
    runs = [sweep / "rl-seed-0", sweep / "rloop-seed-0"]
    assert page_path(runs, None) == Path("compare.html")
    assert page_path([sweep], None) == sweep / "compare.html"
    assert page_path([sweep], tmp_path / "x.html") == tmp_path / "x.html"
    with pytest.raises(ConfigError, match=r"ends in \.html; got notes\.md"):
        page_path([sweep], Path("notes.md"))


def test_the_page_is_one_file_with_every_section_and_escapes_names(sweep, tmp_path):
    hostile = changed_copy(sweep / "rl-seed-0", tmp_path / "<img src=x onerror=alert(1)>\u202e")
    found = compare_runs([sweep / "rloop-seed-0", hostile])
    page = write_comparison(found, tmp_path / "compare.html").read_text()
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    for heading in ("The verdict", "Forgetting and overfitting", "Cost of each run"):
        assert heading in page
    assert "http://" not in page.split("<script>")[0]


def test_an_estimate_that_excludes_zero_is_called_better_or_worse(sweep, tmp_path):
    ours = {label: 2 * counts for label, counts in RLOOP.items()} | {"iter-002": [8] * 8}
    theirs = {label: 2 * counts for label, counts in RL.items()} | {"explored-001@8": [0] * 8}
    runs = [write_method_run(tmp_path, "rloop", s, ours) for s in (0, 1)]
    runs += [write_method_run(tmp_path, "rl", s, theirs) for s in (0, 1)]
    found = compare_runs(runs)
    difference = metric(found, "RLoop", "avg@8").difference
    # 8 of 8 problems went from none to all: 1 - 2 (1 - .025^(1/8)) = .261167
    assert difference is not None
    assert (difference.low, difference.high) == pytest.approx((0.261167, 1.0), abs=1e-6)
    page = write_comparison(found, tmp_path / "compare.html").read_text()
    assert "better</span>" in page
    assert "+100.0 points [+26.1, +100.0], which excludes zero." in page
