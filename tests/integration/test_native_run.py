"""Whole runs of the native engine on a tiny random model: the program as its user starts it."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
import torch
from doubles_runs import logged, trajectories
from transformers import AutoModelForCausalLM, AutoTokenizer

from rloop.observe.run_log import read_metrics

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "tiny.yaml"
SMALL = [
    "policy.path=random:llama-1x64",
    "coldstart.epochs=12",
    "tasks.evaluate.0.size=8",
    "explore.steps=3",
    "explore.checkpoint_every=1",
    "engine.dtype=float32",
]


def rloop(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("rloop")), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=-1, stderr=subprocess.STDOUT, **options
    )


def run_small(out: Path, *more: str) -> tuple[int, str]:
    sets = [word for value in (*SMALL, *more) for word in ("--set", value)]
    process = rloop("run", str(RECIPE), *sets, "--out", str(out))
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("native") / "run"
    code, output = run_small(run_dir)
    assert code == 0, output
    return run_dir


def test_a_run_leaves_what_the_design_says(finished: Path):
    for name in ("recipe.yaml", "config.json", "environment.json", "manifest.json", "report.html"):
        assert (finished / name).stat().st_size > 0
    policies = sorted(path.name for path in (finished / "policies").iterdir())
    assert policies == ["base", "coldstart", "iter-001", "iter-002"]


def test_its_policies_load_in_transformers_and_write(finished: Path):
    path = finished / "policies" / "iter-001"
    model: Any = AutoModelForCausalLM.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    inputs = tokenizer("Calculate 3 + 4.", return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(
            inputs["input_ids"],
            attention_mask=torch.ones_like(inputs["input_ids"]),
            max_new_tokens=4,
            do_sample=False,
        )
    assert written.shape[1] > inputs["input_ids"].shape[1]


def test_its_files_open_with_pandas_and_duckdb(finished: Path):
    expert = pd.read_parquet(finished / "expert" / "iter-001.parquet")
    assert expert["correct"].all()
    assert (expert["finish_reason"] == "stop").all()
    pattern = str(finished / "trajectories" / "**" / "*.parquet")
    sql = f"select count(*) from '{pattern}' where phase = 'explore'"
    found = duckdb.execute(sql).fetchall()
    # 2 iterations x 3 steps x 8 prompts x 8 members
    assert found == [(384,)]
    metrics = pd.read_json(finished / "metrics.jsonl", lines=True)
    assert len(metrics[metrics["phase"] == "explore"]) == 6


def test_the_minimal_loop_gives_the_same_numbers(finished: Path, tmp_path: Path):
    spec = importlib.util.spec_from_file_location("minimal", ROOT / "examples" / "minimal_loop.py")
    assert spec is not None
    assert spec.loader is not None
    minimal = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(minimal)
    from rloop.engines.native.engine import NativeEngine
    from rloop.recipe.load import load_recipe
    from rloop.tasks.pool import VerifierPool

    recipe = load_recipe(RECIPE, SMALL)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with VerifierPool(1, 5.0) as pool:
        loop = minimal.MinimalLoop(recipe, NativeEngine(recipe), pool, tmp_path)
        loop.run()
    torch.set_num_threads(threads)
    rows = {
        line["policy"]: line
        for line in read_metrics(finished)
        if line["phase"] == "evaluate" and not line["policy"].startswith("explored")
    }
    assert [policy for policy, _, _ in loop.history] == list(rows)
    for policy, task, metrics in loop.history:
        stored = {key: rows[policy][f"evaluate/{task}/{key}"] for key in metrics}
        assert stored == metrics


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_resumes_to_the_same_bits(
    finished: Path, tmp_path: Path, number: signal.Signals
):
    run_dir = tmp_path / "run"
    sets = [word for value in SMALL for word in ("--set", value)]
    process = rloop("run", str(RECIPE), *sets, "--out", str(run_dir))
    wait_for(run_dir / "trajectories/iteration-1/phase-explore/step-000002.parquet", process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    if number == signal.SIGINT:
        assert process.returncode == 130, output
        assert "rloop resume" in output
    resumed = rloop("resume", str(run_dir))
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, output
    assert "Skipping what is complete" in output
    assert logged(run_dir) == logged(finished)
    sql = "select * exclude (run) from trajectories order by iteration, phase, step, policy, "
    sql += "problem_id, member"
    assert trajectories(run_dir, sql) == trajectories(finished, sql)
    for name in ("iter-001", "iter-002"):
        weights = Path("policies") / name / "model.safetensors"
        assert (run_dir / weights).read_bytes() == (finished / weights).read_bytes()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Return when the file is there; fail when the process ends first."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def test_a_run_says_what_it_ran_on(finished: Path):
    found = json.loads((finished / "environment.json").read_text())
    assert found["engine"]["device"] == "cpu"
    assert found["packages"]["transformers"]
