"""Methods compared at several temperatures: read from runs, by hand, on the page."""

import json
from pathlib import Path

import pytest
from doubles_comparison import SAMPLES, TASK, write_evaluation, write_method_run

from rloop.report.compare import compare_runs, comparison_json, write_comparison


def write_points(run_dir: Path, points: dict[tuple[str, float], list[int]]) -> None:
    """Write what a run measures at its end: correct completions of 8 by (policy, temperature)."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    last = next(policy for policy, _ in points if policy != "base")
    manifest["phases"]["2/finetune"] = {"policy": last, "path": f"policies/{last}"}
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    folder = run_dir / "temperatures" / f"{last}-n{SAMPLES}"
    scores = []
    for (policy, temperature), counts in points.items():
        name = f"{policy}-t{temperature:g}"
        write_evaluation(folder / name, TASK, policy, counts, ("t-1", "numeric-1"), SAMPLES)
        place = {"policy": policy, "temperature": temperature, "is_base": policy == "base"}
        scores += [
            place
            | {"folder": name, "task": TASK, "metric": metric, "value": 0, "low": 0, "high": 0}
            for metric in ("avg@8", "pass@1", "pass@8")
        ]
    (folder / "scores.json").write_text(json.dumps(scores))
    (folder / "sharpening.json").write_text("[]")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    base = {("base", 0.5): [8, 8, 0, 0], ("base", 1.0): [2, 2, 2, 2]}
    policies = {
        # as sharp a base: avg 1/2, pass@8 1/2 at both temperatures
        "rl": {("explored-001", 0.5): [8, 8, 0, 0], ("explored-001", 1.0): [8, 8, 0, 0]},
        # above: avg 3/4 with pass@8 1
        "rloop": {("iter-002", 0.5): [6, 6, 6, 6], ("iter-002", 1.0): [6, 6, 6, 6]},
    }
    for method, points in policies.items():
        counts = {
            "coldstart": [2, 2, 2, 2],
            ("explored-001@8" if method == "rl" else "iter-002"): [2] * 4,
        }
        write_points(write_method_run(tmp_path, method, 0, counts), base | points)
    return tmp_path


def test_a_method_is_measured_against_the_base_and_the_reference(runs):
    found = compare_runs([runs])
    gaps = {(one.method, one.against): one.gap.value for one in found.curves}
    # RL equals the base's point at 0.5. RLoop has 3/4 at pass@8 1, where the base has 1/4, and RL,
    # which reaches 1/2 at most, 1/2.
    assert gaps == {
        ("Plain RL", "base"): 0.0,
        ("RLoop", "base"): 0.5,
        ("RLoop", "Plain RL"): 0.25,
    }
    rows = [row for row in comparison_json(found) if row["metric"] == "avg_at_equal_pass@8"]
    assert {(row["method"], row["reference"]): row["difference"] for row in rows} == gaps
    at_base = {row["method"]: row["at_base"] for row in rows if row["reference"] == "base"}
    assert at_base == {"Plain RL": (1.0, None, 0.25), "RLoop": (1.0, 0.75, 0.25)}
    page = write_comparison(found, runs / "compare.html").read_text()
    assert "+50.0" in page
    assert "+25.0" in page


def test_runs_without_temperatures_are_compared_as_before(runs):
    for path in runs.glob("rl-*/temperatures/*/sharpening.json"):
        path.unlink()
    assert compare_runs([runs]).curves == ()
