"""The small proving ground from its problems to its pictures, in a size that shows that it runs."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {"train.0": "train", "evaluate.0": "held-out", "evaluate.1": "shifted"}
PICTURES = ("main", "methods", "dynamics", "rates", "sensitivity")
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
    changed = tmp_path / "changed"
    for method, name in (("rloop", "the recipe"), ("rloop", "cap 2"), ("rl", "KL 0.1")):
        (changed / method / name).mkdir(parents=True)
        (changed / method / name / "one").symlink_to(sweep / f"{method}-seed-0")
    command = [sys.executable, "proof/pictures.py", str(sweep), str(tmp_path)]
    pictures = run(*command, "--rates", str(sweep), "--sensitivity", str(changed))
    names = [Path(line).stem for line in pictures.splitlines()]
    assert names == [f"proof-{what}" for what in PICTURES]
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in names)
    read = runpy.run_path(str(ROOT / "proof" / "pictures.py"))["read_sweep"](sweep)
    # both hand a policy over after 2 and 4 steps: RL itself, and RLoop's two iterations
    for runs in read.values():
        assert [steps for steps, _ in runs[0].could_end_with()] == [0, 2, 4]
