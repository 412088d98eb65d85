"""A run of 20,000 trajectories, made up by benchmarks/large_run.py, through everything light."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rloop.cli.browse import find_trajectories
from rloop.report.trajectories import MAX_SAMPLED, sample_trajectories
from rloop.store.export import export_trajectories
from rloop.store.trajectories import TrajectoryStore

ROOT = Path(__file__).parents[3]
EVALUATIONS = (1 + 2 * (20 // 10 + 1)) * 100 * 16


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("large") / "run"
    command = [sys.executable, str(ROOT / "benchmarks/large_run.py"), str(folder)]
    subprocess.run([*command, "--trajectories", "20000", "--steps", "40"], check=True)
    return folder


def test_every_trajectory_is_counted_where_it_lies(run_dir):
    # 20,000 / (40 x 16) = 31.25 groups a step, so 31 x 16 = 496 in each of 40 steps
    store = TrajectoryStore(run_dir)
    assert store.count(phase="explore") == 40 * 496
    assert store.count(phase="evaluate") == EVALUATIONS
    found = store.query(
        "select iteration, step, count(*) as n, avg(reward) as reward from trajectories "
        "where phase = 'explore' group by all order by all"
    ).to_pylist()
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    logged = [row for row in lines if row["phase"] == "explore"]
    assert [row["n"] for row in found] == [496] * 40
    assert [row["reward"] for row in found] == pytest.approx(
        [row["explore/reward_mean"] for row in logged]
    )


def test_sample_browser_and_export_give_what_sql_gives(run_dir, tmp_path):
    shown, total = sample_trajectories(run_dir)
    assert (len(shown), total) == (MAX_SAMPLED, 40 * 496 + EVALUATIONS)
    filters = {"iteration": 2, "phase": "explore", "step": 7, "verdict": "wrong"}
    rows = find_trajectories(run_dir, filters, 5)
    wanted = TrajectoryStore(run_dir).query(
        "select problem_id, member, completion_text from trajectories where iteration = 2 "
        "and phase = 'explore' and step = 7 and verdict = 'wrong' "
        "order by problem_id, member limit 5"
    )
    names = wanted.column_names
    assert [{name: row[name] for name in names} for row in rows] == wanted.to_pylist()
    count = export_trajectories(run_dir, tmp_path / "trl", "trl", "expert")
    kept = [
        json.loads((run_dir / "manifest.json").read_text())["phases"][f"{i}/select"] for i in (1, 2)
    ]
    assert count == sum(one["kept_count"] for one in kept)
