"""Policies made of a base and an adapter: peft's directories, read, merged and written.

Such a directory has `adapter_config.json`, which names the base, `adapter_model.safetensors` and
the tokenizer, but no config.json. transformers can load it if peft is installed.

Shape letters: O outputs and I inputs of a linear layer, R rank.
"""

import json
import shutil
import tarfile
from collections.abc import Mapping
from io import BytesIO
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from rloop.disk import write_text
from rloop.errors import EngineError
from rloop.policies.directory import (
    ADAPTER_CONFIG,
    companion_files,
    first_line,
)
from rloop.policies.finite import check_finite
from rloop.policies.model_files import find_model

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
FACTORS = (".lora_A.weight", ".lora_B.weight")


def base_name(path: Path) -> str:
    """Return the directory or hub name of an adapter's base, as written in the adapter."""
    return str(_config(path).get("base_model_name_or_path"))


def base_directory(path: Path) -> Path:
    """Return the directory of an adapter's base; EngineError if it is not on this machine."""
    name = base_name(path)
    found = find_model(name)
    if found is None or found.suffix == ".gguf":
        raise EngineError(
            f"Policy {path} is an adapter of {name}, which is not on this machine. Download it "
            f"(`hf download {name}`), or write its path into {path / ADAPTER_CONFIG}."
        )
    return found


@torch.no_grad()
def merge_adapter(model: PreTrainedModel, path: Path) -> None:
    """Add an adapter to the weights of its base: W + alpha / R B A, in float32."""
    config, factors = _config(path), _factors(path)
    others = [key for key in factors if not key.endswith(FACTORS)]
    if others or config.get("use_dora") or config.get("alpha_pattern"):
        what = others[0] if others else "use_dora or alpha_pattern"
        raise EngineError(
            f"Policy {path} is more than a plain LoRA adapter ({what}). Merge it into its base "
            "with peft: model.merge_and_unload().save_pretrained(DIR)."
        )
    rank = int(config["r"])
    scale = float(config["lora_alpha"]) / (sqrt(rank) if config.get("use_rslora") else rank)
    for name in _layers(factors):
        try:
            weight: Any = model.get_submodule(name).weight
        except AttributeError as error:
            raise EngineError(
                f"Policy {path} changes {name}, but its base {base_name(path)} has no weight of "
                f"that name. Merge them with peft, then load the result."
            ) from error
        a_RI, b_OR = (factors[name + suffix].float() for suffix in FACTORS)
        change_OI = (b_OR @ a_RI * scale).to(weight.device)
        weight.copy_((weight.float() + change_OI).to(weight.dtype))


def write_adapter(
    archive: bytes, directory: Path, *, base: str, source_dir: Path, name: str
) -> None:
    """Write a server's archive into an existing directory as the policy of that name.

    Raises NonFinitePolicy if it has NaN or infinite weights.
    """
    try:
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(directory, filter="data")
    except tarfile.TarError as error:
        raise EngineError(
            f"The server's archive of {name} is damaged ({first_line(error)}). Try again."
        ) from error
    factors = _factors(directory)
    check_finite(factors, name)
    # Without target_modules peft takes a default, and ignores the rest of the file.
    config = _config(directory) | {
        "base_model_name_or_path": base,
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "target_modules": sorted({layer.rpartition(".")[2] for layer in _layers(factors)}),
    }
    write_text(directory / ADAPTER_CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    for file in companion_files(source_dir):
        copy = directory / file.relative_to(source_dir)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{path / ADAPTER_CONFIG} cannot be read: {first_line(error)}."
        ) from error
    return dict(found)


def _layers(factors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the adapted layers."""
    return sorted({key.removesuffix(FACTORS[0]) for key in factors if key.endswith(FACTORS[0])})


def _factors(path: Path) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors by their names in the base, with the suffix."""
    try:
        return {k.removeprefix(PREFIX): v for k, v in load_file(path / WEIGHTS).items()}
    except (OSError, SafetensorError) as error:
        raise EngineError(
            f"The adapter {path / WEIGHTS} cannot be read: {first_line(error)}."
        ) from error
