"""Running out of memory: halved once, said once, the same result; then an error that says what to
set.
"""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_models import tiny_model
from doubles_policies import tiny_policy

from rloop.algo.objective import Objective
from rloop.engines.base import SampleRequest, TrainingSequence
from rloop.engines.native.learner import Learner
from rloop.engines.native.logprobs import completion_logprobs
from rloop.engines.native.memory import Budget, explained, is_out_of_memory, return_freed
from rloop.engines.native.sampler import Batch, Sampler
from rloop.errors import EngineError
from rloop.recipe.config import OptimizerConfig, SamplingConfig
from rloop.recipe.engine import EngineConfig

CPU_SAYS = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
OUT_OF_MEMORY: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: RuntimeError(CPU_SAYS),
    lambda: RuntimeError("CUDA error: out of memory"),
    lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    MemoryError,
]


class Failing:
    """Stands before a function and raises as if memory had run out, on the calls named."""

    def __init__(self, real: Any, *calls: int, error: Callable[[], Exception] = MemoryError):
        self.real, self.calls, self.error, self.num_calls = real, calls, error, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.num_calls += 1
        if self.num_calls in self.calls:
            raise self.error()
        return self.real(*args, **kwargs)


@pytest.mark.parametrize("make", OUT_OF_MEMORY)
def test_each_way_of_saying_it_is_understood(make: Callable[[], Exception]):
    assert is_out_of_memory(make())


def test_what_this_torch_says_on_a_cpu_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")]
)
def test_another_error_is_none_and_passes_a_budget(error: Exception):
    assert not is_out_of_memory(error)
    budget = Budget("engine.max_batch", 8, "rows")

    def fails(_: int) -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        budget.within(fails)
    assert budget.value == 8


def test_a_budget_is_halved_once_and_then_says_what_to_set(caplog: pytest.LogCaptureFixture):
    budget, tried = Budget("engine.max_batch", 9, "rows at a time", hint=" or sell it"), []

    def needs(value: int) -> int:
        tried.append(value)
        if value > 4:
            raise MemoryError
        return value

    with caplog.at_level(logging.WARNING, logger="rloop"):
        assert budget.within(needs) == 4
        assert budget.within(needs) == 4
    assert tried == [9, 4, 4]
    assert caplog.messages == [
        "Out of memory with engine.max_batch=9: continuing with 4 rows at a time."
    ]
    with pytest.raises(EngineError) as caught:
        budget.within(Failing(None, 1))
    assert str(caught.value) == (
        "Out of memory with engine.max_batch=4 after it was halved from 9. Add --set "
        "engine.max_batch=2 or sell it."
    )


def test_a_budget_of_one_cannot_be_halved():
    with pytest.raises(EngineError, match=r"Out of memory with engine.max_batch=1\. "):
        Budget("engine.max_batch", 1, "rows").within(Failing(None, 1))


def test_what_cannot_be_cut_is_explained():
    with (
        pytest.raises(EngineError, match=r"^Out of memory: it does not fit\. Add"),
        explained("it", "Add some."),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match="shapes"), explained("it", "Add some."):
        raise RuntimeError("shapes differ")


SEQUENCES = [
    TrainingSequence(
        prompt_ids=(5, 9, index + 1),
        completion_ids=(6, 11, 7 + index, 2),
        behavior_logprobs=(-4.0, -4.1, -3.9, -4.0),
        advantage=(-1.0) ** index,
    )
    for index in range(6)
]
DAPO = Objective(loss="dapo", clip_low=0.2, clip_high=0.28)


def updated(model: Any) -> tuple[dict[str, float], list[torch.Tensor]]:
    learner = Learner(
        model, OptimizerConfig(learning_rate=1e-3), EngineConfig(microbatch_tokens=32)
    )
    metrics = learner.update(SEQUENCES, DAPO, learning_rate=1e-3)
    return metrics, [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_an_update_that_ran_out_of_memory_halfway_is_the_same_update(
    dtype: torch.dtype, where: str, monkeypatch: pytest.MonkeyPatch
):
    expected, weights = updated(tiny_model(dtype=dtype))
    model = tiny_model(dtype=dtype)
    if where == "forward":
        # the second micro-batch fails, when the first one's gradient is there already
        failing = Failing(completion_logprobs, 2)
        monkeypatch.setattr("rloop.engines.native.learner.completion_logprobs", failing)
    else:
        failing = Failing(lambda grad: grad, 1)
        next(model.parameters()).register_hook(failing)
    found, after = updated(model)
    assert failing.num_calls > 2
    # times apart, all that differs is rounding
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)
    for one, other in zip(after, weights, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_an_update_that_runs_out_again_says_what_to_set(monkeypatch: pytest.MonkeyPatch):
    failing = Failing(None, 1, 2, error=lambda: torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setattr("rloop.engines.native.learner.completion_logprobs", failing)
    model = tiny_model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(EngineError) as caught:
        updated(model)
    assert str(caught.value) == (
        "Out of memory with engine.microbatch_tokens=16 after it was halved from 32. Add --set "
        "engine.microbatch_tokens=8 or --set engine.gradient_checkpointing=true."
    )
    for one, other in zip(model.parameters(), before, strict=True):
        assert torch.equal(one, other)


def test_an_optimizer_that_does_not_fit_says_what_to_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "rloop.engines.native.learner.MasterWeights", Failing(None, 1, error=MemoryError)
    )
    with pytest.raises(EngineError, match=r"Add --set engine.offload_optimizer=true"):
        updated(tiny_model())


REQUESTS = [SampleRequest((5, 9, number // 3 + 1), seed=100 + number) for number in range(12)]
SETTINGS = SamplingConfig(max_completion_tokens=8)


@pytest.mark.parametrize("call", [1, 2, 5, 9])
def test_sampling_that_ran_out_of_memory_halfway_gives_the_same_completions(
    call: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    sampler = Sampler(tiny_policy(), max_batch=6, prefill_tokens=64, is_fused=False)
    expected = {i: c.completion_ids for i, c in sampler.sample(REQUESTS, SETTINGS)}
    failing = Failing(Batch._decode, call)
    monkeypatch.setattr(Batch, "_decode", lambda *args: failing(*args))
    with caplog.at_level(logging.WARNING, logger="rloop"):
        found = list(sampler.sample(REQUESTS, SETTINGS))
    assert len(found) == 12
    assert {index: completion.completion_ids for index, completion in found} == expected
    (message,) = caplog.messages
    assert message == (
        "Out of memory with engine.max_batch=6: continuing with 3 completions at a time, with "
        "the same results up to rounding."
    )


def test_sampling_that_runs_out_again_says_what_to_set(monkeypatch: pytest.MonkeyPatch):
    failing = Failing(Batch._decode, 2, 3)
    monkeypatch.setattr(Batch, "_decode", lambda *args: failing(*args))
    sampler = Sampler(tiny_policy(), max_batch=6, prefill_tokens=64, is_fused=False)
    with pytest.raises(EngineError, match=r"engine.max_batch=3 after .* --set engine.max_batch=1"):
        list(sampler.sample(REQUESTS, SETTINGS))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_freed_in_pieces_goes_back_to_the_system():
    def resident_mib() -> int:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE") >> 20

    pieces = [bytearray(100_000) for _ in range(2000)]
    kept = pieces[::50]  # so that the heap cannot simply shrink from its end
    before = resident_mib()
    del pieces
    return_freed()
    assert resident_mib() < before - 150
    assert len(kept) == 40
