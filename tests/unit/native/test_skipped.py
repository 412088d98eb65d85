"""Updates that were skipped as not finite: kept in a file that shows the same again."""

import json
import logging
from dataclasses import replace
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_models import tiny_model
from doubles_records import place_at
from safetensors import safe_open

from rloop.algo.losses import Objective
from rloop.config import OptimizerConfig
from rloop.config_engine import EngineConfig
from rloop.engines.native import skipped as skipped_module
from rloop.engines.native.learner import Learner
from rloop.engines.native.microbatch import TrainingSequence
from rloop.engines.native.replay import replay
from rloop.engines.native.skipped import WEIGHTS_TIMES, write_skipped
from rloop.errors import EngineError

DAPO = Objective(loss="dapo", clip_low=0.2, clip_high=0.28)
GOOD = [
    TrainingSequence(
        prompt_ids=(5, 9, index + 1),
        completion_ids=(6, 11, 2)[: index + 1],
        behavior_logprobs=(-4.0, -4.1, -3.9)[: index + 1],
        advantage=(-1.0) ** index,
    )
    for index in range(3)
]
BAD = [GOOD[0], replace(GOOD[1], behavior_logprobs=(-4.0, nan)), GOOD[2]]


def make_learner(model: Any) -> Learner:
    config = OptimizerConfig(learning_rate=1e-3)
    return Learner(model, config, EngineConfig(microbatch_tokens=32), num_updates=9)


def kept(learner: Learner, folder: Path, step: int = 12) -> Path:
    assert learner.skipped is not None
    file = folder / "nonfinite" / f"001-explore-{step:06d}.safetensors"
    assert write_skipped(learner.skipped, file, place_at(step))
    learner.skipped = None
    return file


def overflow(model: Any) -> None:
    """Make the weights so large that squares in the norms overflow; each one stays finite.

    All states are zero then and log-probabilities those of a uniform choice: only the gradient is
    not finite.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cause", ["batch", "weights"])
def test_a_file_shows_again_what_was_not_finite(tmp_path: Path, dtype: torch.dtype, cause: str):
    model = tiny_model(dtype=dtype)
    learner = make_learner(model)
    if cause == "weights":
        overflow(model)
    metrics = learner.update(BAD if cause == "batch" else GOOD, DAPO)
    assert metrics["skipped_updates_count"] == 1.0

    found = replay(kept(learner, tmp_path))

    assert found.metrics["skipped_updates_count"] == 1.0
    for key in ("loss_mean", "grad_norm"):
        assert isfinite(found.metrics[key]) == isfinite(metrics[key])
    # the clip cuts a NaN ratio's gradient off: there the loss alone shows it
    assert not isfinite(found.metrics["loss_mean" if cause == "batch" else "grad_norm"])
    assert found.sequences == ((1,) if cause == "batch" else ())
    assert found.facts["place"]["step"] == 12
    assert found.facts["update"] == 1
    assert found.facts["metrics"]["grad_norm"] == str(metrics["grad_norm"])


def test_nan_weights_are_named(tmp_path: Path):
    model = tiny_model()
    learner = make_learner(model)
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.up_proj.weight")[3, 4] = nan
    learner.update(GOOD, DAPO)
    assert replay(kept(learner, tmp_path)).weights == ("model.layers.1.mlp.up_proj.weight",)


def test_the_weights_of_that_moment_are_in_the_file_once_for_updates_in_a_row(tmp_path: Path):
    model = tiny_model()
    learner = make_learner(model)
    learner.update(GOOD, DAPO)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    learner.update(BAD, DAPO)
    first = kept(learner, tmp_path, 2)
    learner.update(GOOD, DAPO)
    with safe_open(first, "pt") as stored:
        for name in stored.keys():  # noqa: SIM118 (not a mapping)
            if name.startswith("model."):
                expected = before[name.removeprefix("model.")]
                assert torch.equal(stored.get_tensor(name), expected)
    # the update in between moved the weights, so they are in the next one's file too; not again
    learner.update(BAD, DAPO)
    assert learner.skipped is not None
    assert learner.skipped.weights
    learner.skipped = None
    learner.update(BAD, DAPO)
    second = kept(learner, tmp_path, 5)
    with pytest.raises(EngineError, match=r"has no weights in it.*policy=DIR"):
        replay(second)


def test_a_file_without_weights_is_replayed_with_a_policys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(skipped_module, "WEIGHTS_BYTES", 1000)
    model = tiny_model()
    learner = make_learner(model)
    learner.update(BAD, DAPO)
    file = kept(learner, tmp_path)
    model.save_pretrained(tmp_path / "policy")
    assert replay(file, policy=tmp_path / "policy").sequences == (1,)
    assert file.stat().st_size < 10_000


def test_weights_are_kept_a_few_times_only():
    learner = make_learner(tiny_model())
    has_weights = []
    for _ in range(WEIGHTS_TIMES + 2):
        learner.update(BAD, DAPO)
        assert learner.skipped is not None
        has_weights.append(bool(learner.skipped.weights))
        learner.skipped = None
        learner.update(GOOD, DAPO)
    assert has_weights == [True] * WEIGHTS_TIMES + [False, False]


def test_of_several_skipped_updates_the_first_is_kept_until_it_is_taken():
    learner = make_learner(tiny_model())
    learner.update(GOOD, DAPO)
    learner.update(BAD, DAPO)
    learner.update(BAD, DAPO)
    assert learner.skipped is not None
    assert learner.skipped.update == 2
    assert learner.policy_version == 1


def test_a_finite_update_keeps_nothing():
    learner = make_learner(tiny_model())
    learner.update(GOOD, DAPO)
    assert learner.skipped is None


def test_sft_and_a_divergence_penalty_keep_what_they_need(tmp_path: Path):
    model = tiny_model()
    learner = make_learner(model)
    sft = [replace(s, behavior_logprobs=None, weight=nan) for s in GOOD]
    learner.update(sft, Objective(loss="sft"))
    assert isnan(replay(kept(learner, tmp_path, 1)).metrics["loss_mean"])
    penalty = replace(DAPO, kl_coef=0.1)
    rows = [replace(s, reference_logprobs=s.behavior_logprobs) for s in GOOD]
    rows[2] = replace(rows[2], reference_logprobs=(nan, -4.0, -4.0))
    learner.update(rows, penalty)
    assert learner.skipped is not None
    learner.skipped = replace(learner.skipped, weights=skipped_module.copied_weights(model))
    assert replay(kept(learner, tmp_path, 2)).sequences == (2,)


def test_a_full_disk_costs_the_file_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    learner = make_learner(tiny_model())
    learner.update(BAD, DAPO)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(skipped_module, "save_file", full)
    assert learner.skipped is not None
    with caplog.at_level(logging.WARNING, logger="rloop"):
        assert not write_skipped(learner.skipped, tmp_path / "a.safetensors", place_at())
    assert "could not be written" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_the_file_says_what_it_is_without_rloop(tmp_path: Path):
    learner = make_learner(tiny_model())
    learner.update(BAD, DAPO)
    with safe_open(kept(learner, tmp_path), "pt") as stored:
        facts = json.loads(stored.metadata()["facts"])
        lengths = stored.get_tensor("completion_ids.lengths").tolist()
        assert stored.get_tensor("advantage").tolist() == [1.0, -1.0, 1.0]
        assert len(stored.get_tensor("completion_ids")) == sum(lengths)
    assert lengths == [1, 2, 3]
    assert facts["objective"]["loss"] == "dapo"
    assert facts["place"]["seed"] == 0
