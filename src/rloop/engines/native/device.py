"""The device and the precision of the native engine, from the recipe."""

from typing import Literal

import torch

from rloop.errors import EngineUnavailable

DtypeName = Literal["auto", "float32", "bfloat16"]


def resolve_device(name: str) -> torch.device:
    """Return the device for `engine.device`: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    `auto` is the first CUDA device if there is one, else an Apple GPU (`mps`), else the CPU.
    """
    has_apple_gpu = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if has_apple_gpu else "cpu"
    device = torch.device(name)
    if device.type == "mps" and not has_apple_gpu:
        raise EngineUnavailable(
            f"engine.device is 'mps', but PyTorch {torch.__version__} sees no Apple GPU. Set "
            "engine.device=cpu."
        )
    return _present_cuda_device(device) if device.type == "cuda" else device


def _present_cuda_device(device: torch.device) -> torch.device:
    if not torch.cuda.is_available():
        raise EngineUnavailable(
            f"engine.device is {str(device)!r}, but PyTorch {torch.__version__} sees no CUDA "
            "device. Set engine.device=cpu, or install a CUDA build of PyTorch and its driver."
        )
    index, count = device.index or 0, torch.cuda.device_count()
    if index >= count:
        raise EngineUnavailable(
            f"engine.device is {str(device)!r}, but there are only {count} CUDA devices "
            f"(cuda:0 to cuda:{count - 1})."
        )
    return torch.device("cuda", index)


def resolve_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """Return the precision of the forward pass for `engine.dtype`.

    `auto` is bfloat16 if the device multiplies it natively (CUDA capability 8.0 and later, CPUs
    with AVX512-BF16 or AMX), else float32: elsewhere bfloat16 is emulated and slower. On an Apple
    GPU it is float32: the first generation emulates bfloat16.
    """
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the most exact type that sums have there: Apple GPUs know no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "mps":
        return False
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
