"""Weights that FSDP2 has in two shards become one directory, by accelerate's gather and ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs TRL (extra trl)")

import torch
from doubles_runs import toy_recipe
from doubles_trl import on_trl
from transformers import AutoModelForCausalLM

from rloop.config_trl import LaunchConfig
from rloop.engines.native.policies import prepare_policy
from rloop.engines.trl.launch import launch_arguments

TESTS = Path(__file__).parents[2]


def test_two_shards_are_saved_as_the_policy_that_they_are(tmp_path):
    base_dir = tmp_path / "base"
    prepare_policy(
        "random:llama-1x32",
        base_dir,
        seed=0,
        trust_remote_code=False,
        needs_chat_template=False,
    )
    recipe = tmp_path / "recipe.json"
    recipe.write_text(on_trl(toy_recipe(tmp_path), processes=2).model_dump_json())
    command = [
        *(
            sys.executable,
            "-m",
            "rloop.engines.trl.launcher",
            str(os.getpid()),
            str(tmp_path / "note"),
        ),
        *launch_arguments(LaunchConfig(processes=2, preset="fsdp2")),
        *(str(TESTS / "doubles_shards.py"), str(recipe), str(tmp_path)),
    ]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    saved, base = (AutoModelForCausalLM.from_pretrained(tmp_path / n) for n in ("saved", "base"))
    ids = torch.arange(2, 10)[None]
    with torch.no_grad():
        found, before = saved(input_ids=ids).logits, base(input_ids=ids).logits
    torch.testing.assert_close(found, torch.load(tmp_path / "logits.pt"), rtol=0, atol=1e-5)
    assert (found - before).abs().max() > 1e-3
