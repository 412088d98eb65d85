"""The wheel works without the repository: its recipes, its pages, its kernels and its command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the unpacked wheel; the other packages are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    arguments = ["install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run([*pip, *arguments], check=True, capture_output=True)
    return target


def call(installed: Path, cwd: Path, *arguments: str) -> str:
    """Run the installed command in a folder that has nothing of the repository."""
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "rloop", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_is_what_runs(installed, tmp_path):
    code = "import rloop; print(rloop.__file__)"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(installed)
    assert "def main" not in (installed / "bin/rloop").read_text()
    listed = call(installed, tmp_path, "recipes")
    assert str(installed / "rloop/recipes/demo.yaml") in listed


@pytest.mark.slow
def test_a_packaged_recipe_runs_to_its_report(installed, tmp_path):
    short = ["iterations=1", "explore.steps=1", "coldstart.epochs=8", "evaluate.samples=2"]
    short += ["evaluate.k=[1,2]", "coldstart.task.size=100"]
    values = [part for value in short for part in ("--set", value)]
    out = call(installed, tmp_path, "run", "tiny", *values)
    assert "iter-001" in out
    assert (tmp_path / "runs/tiny/report.html").stat().st_size > 100_000
    assert "runs/tiny" in call(installed, tmp_path, "export", "runs/tiny", "policy")
