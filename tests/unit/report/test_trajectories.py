import shutil
from collections import Counter

from rloop.report.trajectories import MAX_CHARACTERS, MAX_SAMPLED, sample_trajectories


def test_sample_is_spread_over_every_part_and_verdict(finished_run) -> None:
    shown, total = sample_trajectories(finished_run)
    assert total == 5 * 64
    assert len(shown) == MAX_SAMPLED
    strata = Counter((one["policy"], one["verdict"]) for one in shown)
    policies = {"base", "explored-001", "iter-001", "explored-002", "iter-002"}
    assert {policy for policy, _ in strata} == policies
    for policy in policies:
        # 5 policies x at most 3 verdicts share 72 places: at least 72 // 15 = 4 each
        assert min(strata[policy, "correct"], strata[policy, "wrong"]) >= 4


def test_the_same_run_gives_the_same_sample(finished_run, tmp_path) -> None:
    run_dir = finished_run
    moved = shutil.copytree(run_dir, tmp_path / "it's moved")
    assert sample_trajectories(run_dir) == sample_trajectories(moved)


def test_long_text_is_cut_and_says_so(build_run) -> None:
    shown, _ = sample_trajectories(build_run(hostile="x" * (MAX_CHARACTERS + 5)))
    longest = max((one["completion"] for one in shown), key=len)
    assert longest == "x" * MAX_CHARACTERS + "\n[5 more characters]"


def test_an_error_verdict_comes_with_its_reason(finished_run) -> None:
    shown, _ = sample_trajectories(finished_run)
    errors = [one for one in shown if one["verdict"] == "error"]
    assert {(one["reason"], one["answer"]) for one in errors} == {("no verdict within 5.0 s", "")}


def test_a_run_without_trajectories_has_no_sample(tmp_path) -> None:
    assert sample_trajectories(tmp_path) == ([], 0)


def test_a_row_has_the_question_without_the_template(finished_run) -> None:
    shown, _ = sample_trajectories(finished_run)
    assert all(one["question"].startswith("What is ") for one in shown)
    assert all(one["question"].endswith("?") for one in shown)
