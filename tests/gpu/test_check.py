"""What `make gpu` runs, tried without a GPU so that it cannot rot."""

import json
import os
import subprocess
import sys
from pathlib import Path

CHECK = Path(__file__).with_name("check.py")


def test_everything_runs_and_is_right_on_a_cpu():
    done = subprocess.run(
        [sys.executable, str(CHECK), "--device", "cpu", "--tiny"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    right = {one["name"]: one["is_right"] for one in found["parity"]}
    kinds = ("sampler", "learner", "update", "shared prompts", "adapters", "offloaded", "resumed")
    assert {f"{kind}, {dtype}" for kind in kinds for dtype in ("float32", "bfloat16")} < set(right)
    assert all(right.values())
    assert sorted(found["speed"]) == ["G1", "G2", "G3"]
    assert all(one["contenders"]["rloop"]["parts"] for one in found["speed"].values())
