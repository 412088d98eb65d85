import shutil
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq

from rloop.report.trajectories import MAX_CHARACTERS, MAX_SAMPLED, sample_trajectories


def test_sample_is_spread_over_every_part_and_verdict(build_run) -> None:
    shown, total = sample_trajectories(build_run())
    assert total == 5 * 64
    assert len(shown) == MAX_SAMPLED
    strata = Counter((one.policy, one.verdict) for one in shown)
    policies = {"base", "explored-001", "iter-001", "explored-002", "iter-002"}
    assert {policy for policy, _ in strata} == policies
    for policy in policies:
        # 5 policies x at most 3 verdicts share 72 places: at least 72 // 15 = 4 each
        assert min(strata[policy, "correct"], strata[policy, "wrong"]) >= 4


def test_the_same_run_gives_the_same_sample(build_run, tmp_path) -> None:
    run_dir = build_run()
    moved = shutil.copytree(run_dir, tmp_path / "it's moved")
    assert sample_trajectories(run_dir) == sample_trajectories(moved)


def test_long_text_is_cut_and_says_so(build_run) -> None:
    shown, _ = sample_trajectories(build_run(hostile="x" * (MAX_CHARACTERS + 5)))
    longest = max((one.completion for one in shown), key=len)
    assert longest == "x" * MAX_CHARACTERS + "\n[5 more characters]"


def test_missing_answers_and_policies_are_empty(build_run) -> None:
    run_dir = build_run()
    shutil.rmtree(run_dir / "trajectories/iteration=1")
    shutil.rmtree(run_dir / "trajectories/iteration=2")
    path = next((run_dir / "trajectories").glob("**/*.parquet"))
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([row | {"answer": None} for row in rows]), path)
    shown, total = sample_trajectories(run_dir)
    assert total == 64
    assert {one.answer for one in shown} == {""}


def test_a_run_without_trajectories_has_no_sample(tmp_path) -> None:
    assert sample_trajectories(tmp_path) == ([], 0)
