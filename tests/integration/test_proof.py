"""The small proving ground from its problems to its pictures, in a size that shows that it runs."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {"train.0": "train", "evaluate.0": "held-out", "evaluate.1": "shifted"}
SMALL = [
    "policy.path=random:llama-1x32",
    "iterations=2",
    "explore.steps=2",
    "explore.prompts_per_step=4",
    "explore.group_size=4",
    "expert.max_success_rate=0.99",
    "finetune.epochs=1",
    "tasks.evaluate.0.size=4",
    "tasks.evaluate.1.size=4",
    "evaluate.samples=32",
]


@pytest.mark.slow
def test_a_sweep_of_the_small_recipe_becomes_pictures(tmp_path: Path):
    ground = runpy.run_path(str(ROOT / "proof" / "ground.py"))
    ground["FILES"]["solved"] = (100, range(150))
    ground["main"](tmp_path / "ground")
    sets = [*SMALL, "evaluate.k=[1,32]"]
    for key, name in FILES.items():
        sets.append(f"tasks.{key}.source=file:{tmp_path}/ground/{name}.jsonl")
        sets.append(f"tasks.{key}.verifier=python:doubles_verifiers:is_short")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    rloop = str(Path(sys.executable).with_name("rloop"))
    sweep = tmp_path / "sweep"
    command = [rloop, "sweep", "proof/small.yaml", "--methods", "rl,rloop", "--seeds", "1"]
    command += [word for change in sets for word in ("--set", change)]
    table = run(*command, "--jobs", "2", "--out", str(sweep))
    assert "Plain RL" in table
    pictures = run(
        sys.executable, "proof/pictures.py", str(sweep), str(tmp_path), "--rates", str(sweep)
    )
    names = [Path(line).name for line in pictures.splitlines()]
    assert names == [f"proof-{what}.png" for what in ("main", "methods", "dynamics", "rates")]
    assert all((tmp_path / name).stat().st_size > 10_000 for name in names)
    read = runpy.run_path(str(ROOT / "proof" / "pictures.py"))["read_sweep"](sweep)
    # both hand a policy over after 2 and 4 steps: RL itself, and RLoop's two iterations
    for runs in read.values():
        assert [steps for steps, _ in runs[0].handed_over()] == [0, 2, 4]
