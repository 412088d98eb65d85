"""`mix`: what an iteration hands over is a weighted mean of weights."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_runs import begin, toy_recipe, with_mixed_groups
from pydantic import ValidationError
from safetensors.torch import load_file

from rloop import cli
from rloop.engines.registry import build_engine
from rloop.observe.run_log import read_metrics
from rloop.session.process import resume


def weights(run_dir: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "policies" / name / "model.safetensors")


def test_plain_rl_hands_over_the_mean_of_its_weights_and_the_bases(tmp_path: Path):
    mix = {"base": 0.25, "explored": 0.75}
    recipe = toy_recipe(tmp_path, expert=None, finetune=None, mix=mix, iterations=2)
    code, run_dir = begin(with_mixed_groups(recipe), tmp_path, build_engine)
    assert code == 0
    base, explored, mixed = (weights(run_dir, n) for n in ("base", "explored-001", "iter-001"))
    for name, weight in mixed.items():
        assert torch.allclose(weight, 0.25 * base[name] + 0.75 * explored[name], atol=1e-7)
    assert any(not torch.equal(weight, base[name]) for name, weight in mixed.items())
    measured = [line["policy"] for line in read_metrics(run_dir) if line["phase"] == "evaluate"]
    assert measured == ["base", "explored-001", "iter-001", "explored-002", "iter-002"]


def test_a_fine_tuned_policy_is_mixed_once_and_a_complete_run_stays(tmp_path: Path):
    recipe = toy_recipe(tmp_path, mix={"base": 0.5, "finetuned": 0.5}, iterations=1)
    code, run_dir = begin(with_mixed_groups(recipe), tmp_path, build_engine)
    assert code == 0
    before = (run_dir / "policies/iter-001/model.safetensors").stat().st_mtime_ns
    tuned, mixed = weights(run_dir, "finetuned-001"), weights(run_dir, "iter-001")
    assert any(not torch.equal(mixed[name], tuned[name]) for name in mixed)
    assert resume(run_dir, build_engine) == 0
    assert (run_dir / "policies/iter-001/model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mix": {"base": 0.5, "explored": 0.6}}, "must sum to 1, got 1.1"),
        ({"mix": {"base": 0.5, "finetuned": 0.5}, "finetune": None, "expert": None}, "finetune"),
    ],
)
def test_weights_that_cannot_be_are_refused(tmp_path: Path, changes: Any, words: str):
    with pytest.raises(ValidationError, match=words):
        toy_recipe(tmp_path, **changes)


def test_the_mean_with_the_base_is_measured_as_another_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    recipe = toy_recipe(tmp_path, expert=None, finetune=None, iterations=1)
    _, run_dir = begin(with_mixed_groups(recipe), tmp_path, build_engine)
    out = tmp_path / "curves"
    policy = str(run_dir / "policies" / "explored-001")
    words = ["eval", policy, "--temperatures", "0.5,1", "--mix", "0.25", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["rloop", *words, "--json"])
    capsys.readouterr()  # the run's own table
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["policy"] for row in rows} == {"base", "explored-001", "run-explored-001-0.25"}
    mixed = load_file(out / "policies" / "run-explored-001-0.25" / "model.safetensors")
    base, explored = (weights(run_dir, name) for name in ("base", "explored-001"))
    for name, weight in mixed.items():
        assert torch.allclose(weight, 0.75 * base[name] + 0.25 * explored[name], atol=1e-7)
