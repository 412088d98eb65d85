"""A policy that is NaN or infinite is neither saved, loaded, learned from nor sampled from."""

from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_models import tiny_model
from doubles_policies import InstantVerify, make_problem
from doubles_runs import toy_recipe
from safetensors.torch import load_file, save_file

from rloop.algo.objective import Objective
from rloop.engines.base import TrainingSequence
from rloop.engines.native.engine import NativeEngine
from rloop.engines.native.logprobs import check_architecture
from rloop.engines.rollout import Rollout
from rloop.errors import DegenerateRun, EngineError, NonFinitePolicy
from rloop.loop.rl import RLState, RLTrainer
from rloop.policies.finite import check_finite, check_logits, nonfinite_names
from rloop.recipe.config import OptimizerConfig
from rloop.types import Place, PolicyRef

PLACE = Place(run="toy", seed=0, iteration=1, phase="explore", policy="explored-001")
SEQUENCES = [TrainingSequence(prompt_ids=(5, 6), completion_ids=(7, 2))] * 4


@pytest.mark.parametrize("odd", [nan, inf, -inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_odd_number_in_a_tensor_is_found(odd: float, dtype: torch.dtype):
    weights = {name: torch.ones(50, 7, dtype=dtype) for name in "abc"}
    weights["b"][31, 5] = odd
    assert nonfinite_names(weights) == ["b"]
    with pytest.raises(NonFinitePolicy, match=r"iter-001 has NaN or infinite weights \(1 of 3.* b"):
        check_finite(weights, "iter-001")


def test_large_numbers_and_their_sums_are_none():
    # 350 x 3e38 is beyond float32, not beyond float64
    weights = {"a": torch.full((50, 7), 3e38), "n": torch.ones(3, dtype=torch.int64)}
    assert nonfinite_names(weights) == []


def test_infinities_that_cancel_are_found():
    assert nonfinite_names({"a": torch.tensor([inf, -inf])}) == ["a"]


def scaled(factor: float) -> Any:
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model


@pytest.mark.parametrize("factor", [1e30, 1e38, nan])
def test_weights_that_overflow_are_told_from_a_strange_architecture(factor: float):
    for check in (check_architecture, lambda model: check_logits(model, "The policy")):
        with pytest.raises(NonFinitePolicy, match="weights have grown until they overflow"):
            check(scaled(factor))


@pytest.mark.parametrize("factor", [1.0, 30.0])
def test_a_policy_with_large_weights_is_still_one(factor: float):
    check_architecture(scaled(factor))
    check_logits(scaled(factor), "The policy")


def test_it_is_an_engines_error_and_says_that_a_run_is_over():
    assert issubclass(NonFinitePolicy, EngineError)
    assert issubclass(NonFinitePolicy, DegenerateRun)


@pytest.fixture
def engine(tmp_path: Path) -> NativeEngine:
    return NativeEngine(toy_recipe(tmp_path))


@pytest.fixture
def base(engine: NativeEngine, tmp_path: Path) -> PolicyRef:
    return engine.prepare("random:llama-1x32", tmp_path / "base", seed=0)


def model_of(engine: NativeEngine) -> Any:
    return engine._held().model


def trained(engine: NativeEngine) -> Any:
    """Return the model after one supervised update."""
    engine.begin(OptimizerConfig(learning_rate=1e-3), seed=0)
    engine.update(SEQUENCES, Objective(loss="sft"), learning_rate=1e-3)
    return model_of(engine)


@pytest.mark.parametrize("factor", [nan, 1e30])
def test_a_broken_policy_is_not_saved_and_nothing_is_left(
    engine: NativeEngine, base: PolicyRef, tmp_path: Path, factor: float
):
    del base
    model = trained(engine)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    with pytest.raises(NonFinitePolicy, match="iter-001"):
        engine.save_policy(tmp_path / "iter-001", "iter-001")
    assert not (tmp_path / "iter-001").exists()


def test_one_nan_that_a_probe_does_not_meet_is_not_saved(
    engine: NativeEngine, base: PolicyRef, tmp_path: Path
):
    del base
    embeddings = trained(engine).get_input_embeddings().weight
    is_probed = {place * 7919 % len(embeddings) for place in range(16)}
    unseen = next(row for row in range(len(embeddings)) if row not in is_probed)
    with torch.no_grad():
        embeddings[unseen, 0] = nan
    with pytest.raises(NonFinitePolicy, match="iter-001"):
        engine.save_policy(tmp_path / "iter-001", "iter-001")
    assert not (tmp_path / "iter-001").exists()


def test_a_directory_with_nan_weights_is_refused(engine: NativeEngine, base: PolicyRef):
    file = base.path / "model.safetensors"
    weights = load_file(file)
    next(iter(weights.values()))[0] = nan
    save_file(weights, file, metadata={"format": "pt"})
    other = NativeEngine(engine._recipe)
    with pytest.raises(NonFinitePolicy, match=r"base has NaN or infinite weights"):
        other.load(base)


def test_what_a_nan_policy_writes_is_no_data(engine: NativeEngine, base: PolicyRef):
    del base
    config = engine._recipe.explore
    explorer = RLTrainer(
        rollout=Rollout(engine=engine, verify=InstantVerify()),
        config=config,
        problems=[make_problem(n) for n in range(4)],
        place=PLACE,
    )
    engine.begin(config.optimizer, seed=0)
    steps = explorer.steps(RLState())
    next(steps)
    with torch.no_grad():
        next(model_of(engine).parameters()).fill_(nan)
    with pytest.raises(NonFinitePolicy, match="explored-001 gives NaN or infinite log-prob"):
        next(steps)
