"""Updates that were skipped because a number was not finite, kept in a file for `replay.py`.

The file has the batch (token ids, advantages, weights, stored log-probabilities), what the loss and
the optimizer were set to, where it happened, and the model's configuration and weights of that
moment (`WEIGHTS_BYTES` and `WEIGHTS_TIMES` bound these). It is no policy and is never used as one.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import PreTrainedModel

from rloop.algo.losses import Objective
from rloop.config import OptimizerConfig
from rloop.config_engine import EngineConfig
from rloop.engines.native.directory import first_line
from rloop.engines.native.microbatch import TrainingSequence
from rloop.types import Place

WEIGHTS_BYTES = 2**30
"""Weights of a larger model stay out of the file; those of the run's last saved state are near."""
WEIGHTS_TIMES = 3
"""Files with weights a learning phase writes at most, so that they cannot fill a disk."""
RAGGED = ("prompt_ids", "completion_ids", "behavior_logprobs", "reference_logprobs")
SINGLE = ("advantage", "weight")
WEIGHT = "model."
UNKNOWN = "unknown_ids"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedUpdate:
    """One update that changed nothing, with all that it was computed from."""

    sequences: Sequence[TrainingSequence]
    objective: Objective
    optimizer: OptimizerConfig
    engine: EngineConfig
    metrics: Mapping[str, float]
    """As the update reported them."""
    update: int
    """Number of the update in its phase, from 1."""
    config: str
    """The model's configuration, JSON."""
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """The model's weights before the update, on the CPU; empty where they are not kept."""
    unknown: torch.Tensor | None = None
    """Ids that the model's distribution leaves out."""


def copied_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the model's weights on the CPU, tied ones once; nothing for a large model."""
    weights = {
        name: weight
        for name, weight in model.state_dict().items()
        if name not in model.all_tied_weights_keys
    }
    if sum(weight.numel() * weight.element_size() for weight in weights.values()) > WEIGHTS_BYTES:
        return {}
    return {name: weight.detach().cpu().clone() for name, weight in weights.items()}


def write_skipped(skipped: SkippedUpdate, file: Path, place: Place) -> bool:
    """Write the update to a safetensors file, whole or not at all; return whether it was.

    A full disk is only warned of: a run does not stop for want of a diagnosis.
    """
    tensors = {f"{WEIGHT}{name}": weight for name, weight in skipped.weights.items()}
    if skipped.unknown is not None:
        tensors[UNKNOWN] = skipped.unknown.cpu()
    for name in RAGGED:
        rows = [getattr(sequence, name) for sequence in skipped.sequences]
        if any(row is None for row in rows):
            continue
        kind = torch.int64 if name.endswith("_ids") else torch.float64
        tensors[name] = torch.tensor([number for row in rows for number in row], dtype=kind)
        tensors[f"{name}.lengths"] = torch.tensor([len(row) for row in rows])
    for name in SINGLE:
        numbers = [getattr(sequence, name) for sequence in skipped.sequences]
        tensors[name] = torch.tensor(numbers, dtype=torch.float64)
    facts = {
        "place": asdict(place),
        "update": skipped.update,
        "metrics": {key: str(value) for key, value in skipped.metrics.items()},
        "objective": asdict(skipped.objective),
        "optimizer": skipped.optimizer.model_dump(),
        "engine": skipped.engine.model_dump(),
    }
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            partial,
            metadata={"config": skipped.config, "facts": json.dumps(facts)},
        )
        partial.replace(file)
    except (OSError, SafetensorError) as error:
        _log.warning("%s could not be written (%s).", file, first_line(error))
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True
