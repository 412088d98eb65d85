import pytest
import torch
from doubles_runs import toy_recipe
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rloop.algo.objective import Objective
from rloop.engines.base import SampleRequest, TrainingSequence
from rloop.engines.native import attention, batches, draw, learner, sampler
from rloop.engines.native import engine as engine_module
from rloop.engines.native.device import resolve_device, resolve_dtype, sum_dtype
from rloop.engines.native.engine import NativeEngine
from rloop.errors import EngineUnavailable
from rloop.recipe.config import OptimizerConfig, SamplingConfig


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({"cuda", "mps"}, torch.device("cuda", 0)),
        ({"mps"}, torch.device("mps")),
        (set(), torch.device("cpu")),
    ],
)
def test_auto_device_is_cuda_then_an_apple_gpu_then_the_cpu(monkeypatch, present, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in present)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in present)
    assert resolve_device("auto") == expected
    assert resolve_device("cpu") == torch.device("cpu")


def test_an_apple_gpu_is_named_and_gets_types_that_it_has(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = resolve_device("mps")
    assert device == torch.device("mps")
    assert resolve_dtype("auto", device) is torch.float32
    assert resolve_dtype("bfloat16", device) is torch.bfloat16
    assert sum_dtype(device) is torch.float32
    assert sum_dtype(torch.device("cpu")) is torch.float64
    # no release of PyTorch's attention is known to take grouped heads there
    assert not attention.takes_grouped_heads(device.type, torch.float32, is_masked=False)


def test_absent_apple_gpu_says_what_to_set(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(EngineUnavailable, match=r"sees no Apple GPU.*engine.device=cpu"):
        resolve_device("mps")


def test_absent_cuda_says_what_to_set(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineUnavailable, match="sees no CUDA device") as caught:
        resolve_device("cuda")
    assert "engine.device=cpu" in str(caught.value)


def test_cuda_index_beyond_the_last_names_the_range(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(EngineUnavailable, match=r"'cuda:2'.*only 2 CUDA devices.*cuda:1"):
        resolve_device("cuda:2")


def test_named_precision_is_taken_as_it_is():
    cpu = torch.device("cpu")
    assert resolve_dtype("float32", cpu) is torch.float32
    assert resolve_dtype("bfloat16", cpu) is torch.bfloat16


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx2": True}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_auto_precision_on_cpu_follows_its_instructions(monkeypatch, features, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert resolve_dtype("auto", torch.device("cpu")) is expected


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_auto_precision_on_cuda_follows_its_capability(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_dtype("auto", torch.device("cuda", 0)) is expected


class NoFloat64(TorchDispatchMode):
    """Refuses what an Apple GPU refuses: tensors of 64-bit floats."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            assert getattr(tensor, "dtype", None) is not torch.float64, f"{func} gave float64"
        return out


def test_sampling_and_learning_need_no_float64_on_an_apple_gpu(tmp_path, monkeypatch):
    """A stand-in: the path that an Apple GPU takes, on the CPU, with float64 refused."""
    recipe = toy_recipe(tmp_path, engine__fused=False)
    engine = NativeEngine(recipe)
    engine.prepare(recipe.policy.path, tmp_path / "base", seed=0)
    settings = SamplingConfig(max_completion_tokens=6, top_p=0.9)
    requests = [SampleRequest(prompt_ids=(5, 9, 7), seed=seed) for seed in range(4)]
    expected = sorted(engine.sample(requests, settings), key=lambda found: found[0])
    for module in (draw, sampler, learner):
        monkeypatch.setattr(module, "sum_dtype", lambda device: torch.float32)
    for module in (engine_module, learner):  # the probe moves its states to the CPU, and compares
        monkeypatch.setattr(module, "check_architecture", lambda model: None)
    monkeypatch.setattr(batches, "is_packed", lambda model: False)
    monkeypatch.setattr(attention, "takes_grouped_heads", lambda *_, **__: False)
    with NoFloat64():
        found = sorted(engine.sample(requests, settings), key=lambda found: found[0])
        engine.begin(OptimizerConfig(learning_rate=1e-3), seed=0)
        sequences = [
            TrainingSequence(prompt_ids=(5, 9, 7), completion_ids=one.completion_ids)
            for _, one in found
        ]
        engine.logprobs(sequences, temperature=1.0)
        metrics = engine.update(sequences, Objective(loss="sft"), learning_rate=1e-3)
    assert metrics["loss_mean"] > 0
    assert [one.completion_ids for _, one in found] == [one.completion_ids for _, one in expected]
