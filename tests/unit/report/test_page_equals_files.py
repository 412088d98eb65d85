"""Numbers of the page against plain SQL over the run's files, by another road than rloop's own."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from doubles_reports import report_run

from rloop.report.page import write_report

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return report_run(tmp_path_factory.mktemp("scripted"))


@pytest.fixture(scope="module")
def html(run_dir) -> str:
    return write_report(run_dir).read_text(encoding="utf-8")


def drawn(html: str, figure_id: str, key: str) -> Rows:
    """Return the rows of a chart's data sets that have a key."""
    found = re.search(r'id="specs">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    datasets = json.loads(found.group(1))[figure_id]["datasets"].values()
    return [row for rows in datasets for row in rows if key in row]


def one(rows: Rows, **wanted: object) -> dict[str, Any]:
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    return row


def sql(run_dir: Path, query: str) -> list[tuple[Any, ...]]:
    files = f"'{run_dir}/trajectories/*/*/*.parquet'"
    query = query.replace("TRAJECTORIES", f"read_parquet({files}, hive_partitioning = false)")
    relation = duckdb.sql(query.replace("EXPERT", f"{run_dir}/expert"))
    assert relation is not None
    return relation.fetchall()


COUNTS = """
    select problem_id, policy, step, count(*) as n, sum(correct::int) as c from TRAJECTORIES
    where phase = 'evaluate' group by all
"""


@pytest.mark.parametrize("policy", ["base", "iter-001", "iter-002"])
def test_pass_at_2_is_that_of_the_files(run_dir, html, policy: str) -> None:
    # 1 - C(n-c, 2) / C(n, 2) = 1 - (n-c)(n-c-1) / (n(n-1))
    ((value,),) = sql(
        run_dir,
        f"select avg(1 - (n - c) * (n - c - 1) / (n * (n - 1))) from ({COUNTS}) "
        f"where policy = '{policy}'",
    )
    row = one(drawn(html, "pass-0", "x"), series=policy, x=2)
    assert row["value"] == pytest.approx(value)
    assert row["low"] <= value <= row["high"]


def test_a_cell_of_forgetting_is_that_of_the_files(run_dir, html) -> None:
    cells = drawn(html, "forgotten-0", "b")
    for before, step, after in (("explored-001", 2, "iter-002"), ("base", 0, "iter-001")):
        ((lost, known),) = sql(
            run_dir,
            f"with counts as ({COUNTS}) select count(*) filter (where b.c = 0), count(*) "
            "from counts a join counts b using (problem_id) "
            f"where a.policy = '{before}' and a.step = {step} and b.policy = '{after}' and a.c > 0",
        )
        row = one(cells, a=f"{before}@{step}" if step else before, b=after)
        assert row["said"] == f"{lost} of {known}"
        assert row["value"] == pytest.approx(lost / known)


def test_the_training_reward_of_a_step_is_that_of_the_files(run_dir, html) -> None:
    ((value,),) = sql(
        run_dir,
        "select avg(reward) from TRAJECTORIES "
        "where phase = 'explore' and iteration = 2 and step = 3",
    )
    # iteration 1 has 4 steps, so step 3 of iteration 2 stands at 7
    rewards = [
        row for row in drawn(html, "held-out-0", "x") if row.get("series") == "training reward"
    ]
    assert one(rewards, x=7)["value"] == pytest.approx(value)


def test_the_funnel_counts_what_the_files_hold(run_dir, html) -> None:
    rows = drawn(html, "funnel", "stage")
    ((pool, successes),) = sql(
        run_dir,
        "select count(*), count(*) filter (where correct and finish_reason = 'stop') "
        "from TRAJECTORIES where phase = 'explore' and iteration = 2",
    )
    ((kept,),) = sql(run_dir, "select count(*) from read_parquet('EXPERT/iter-002.parquet')")
    assert one(rows, iteration=2, stage="all sampled")["count"] == pool
    assert one(rows, iteration=2, stage="successes")["count"] == successes
    assert one(rows, iteration=2, stage="kept")["count"] == kept


def test_the_bins_of_success_rates_are_those_of_the_trajectories(run_dir, html) -> None:
    rates = sql(
        run_dir,
        "select avg(correct::int) from TRAJECTORIES where phase = 'explore' and iteration = 1 "
        "group by problem_id",
    )
    rows = drawn(html, "success-rate-1", "series")
    bins = {(row["low"], row["high"]) for row in rows}
    assert sum(row["count"] for row in rows) == len(rates)
    for low, high in bins:
        inside = [rate for (rate,) in rates if low <= rate <= high]
        shown = [row["count"] for row in rows if (row["low"], row["high"]) == (low, high)]
        assert sum(shown) == len(inside)
    # above 30 % is too easy, by the recipe
    assert all(row["low"] >= 0.3 for row in rows if row["series"] == "too easy")
    assert {row["series"] for row in rows} >= {"kept", "too easy"}


def test_the_table_of_numbers_says_what_the_chart_shows(html) -> None:
    row = one(drawn(html, "pass-0", "x"), series="iter-002", x=4)
    (table,) = re.findall(r'<table data-figure="pass-0">(.*?)</table>', html, re.DOTALL)
    cells = [re.findall(r"<td>(.*?)</td>", line) for line in table.split("</tr>")]
    wanted = ["iter-002", "4", *(f"{row[key]:.4g}" for key in ("value", "low", "high"))]
    assert wanted in cells


def test_another_run_stands_beside_with_its_last_policy(run_dir, html, tmp_path) -> None:
    other = shutil.copytree(run_dir, tmp_path / "other")
    shutil.copytree(run_dir, tmp_path / "ours")
    beside = write_report(tmp_path / "ours", [other]).read_text(encoding="utf-8")
    theirs = one(drawn(beside, "pass-0", "x"), series="other", x=2)
    assert theirs["value"] == one(drawn(html, "pass-0", "x"), series="iter-002", x=2)["value"]
