"""The benchmark as its user starts it, in the size in which overhead is all there is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "run.py"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_sampling_is_measured_against_generate_on_the_same_work(tmp_path):
    file = tmp_path / "new" / "bench.json"
    sets = ["S1", "S2", "S3"]
    done = bench(*sets, *("--tiny", "--rounds", "1", "--peers", "generate", "--json", str(file)))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    sampling = found["sets"]["S1"]
    # 4 problems x 8 completions x 32 tokens
    counts = {name: one["count"] for name, one in sampling["contenders"].items()}
    assert counts == {"rloop": 1024, "generate": 1024}
    ours, theirs = (one["parts"]["sample"] for one in sampling["contenders"].values())
    assert ours["times_rloop"] == 1.0
    assert theirs["times_rloop"] == pytest.approx(theirs["median_s"] / ours["median_s"])
    assert theirs["rate_per_s"] == pytest.approx(1024 / theirs["median_s"])
    assert 0 < ours["of_limit_frac"] < 1
    assert ours["of_limit_frac"] == pytest.approx(sampling["limit_s"] / ours["median_s"])
    assert all(1e8 < one["peak_bytes"] < 1e10 for one in sampling["contenders"].values())
    assert found["machine"]["threads"] == "1"
    table = done.stdout.splitlines()
    assert table[0] == "S1 sampling 4 problems x 8 completions x 32 tokens"
    assert [line.split()[:2] for line in table if "tokens/s" in line] == [
        ["sample", "rloop"],
        ["sample", "transformers"],
        ["step", "rloop"],
        ["epoch", "rloop"],
    ]


def test_an_unknown_work_set_is_refused_with_the_known_ones():
    done = bench("S9")
    assert done.returncode == 2
    assert "S9 is no work set; there are S1, S2, S3, S4a" in done.stderr
