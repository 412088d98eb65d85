"""A skipped update done again from its file, to see what was not finite.

    from rloop.engines.native.replay import replay
    found = replay("RUN/nonfinite/001-explore-000012.safetensors")
    print(found.metrics["loss_mean"], found.metrics["grad_norm"])    # nan nan, as in the run
    print(found.sequences, found.weights)    # which completions and which weights are not finite

On a CPU, in the precision of the run; all weights train, also where the run trained adapters, whose
gradients follow from theirs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from rloop.algo.losses import Objective
from rloop.config import OptimizerConfig
from rloop.config_engine import EngineConfig
from rloop.engines.native import attention
from rloop.engines.native.directory import load_complete
from rloop.engines.native.finite import nonfinite_names
from rloop.engines.native.learner import Learner
from rloop.engines.native.microbatch import TrainingSequence, sequence_logprobs
from rloop.engines.native.skipped import RAGGED, SINGLE, UNKNOWN, WEIGHT
from rloop.engines.native.vocabulary import leave_out
from rloop.errors import EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What an update gives when it is done again.

    Example: Replay(metrics={"loss_mean": nan, ...}, sequences=(3,), weights=(), facts={...})
    """

    metrics: Mapping[str, float]
    """As `Learner.update` reports them; `skipped_updates_count` is 1 where it is skipped again."""
    sequences: tuple[int, ...]
    """Indices of sequences with a log-probability, stored or computed now, that is not finite."""
    weights: tuple[str, ...]
    """Names of weights that are not finite."""
    facts: Mapping[str, Any]
    """`place`, `update`, `metrics` (as in the run), `objective`, `optimizer`, `engine`."""


def replay(file: str | Path, policy: str | Path | None = None) -> Replay:
    """Do the update of a file again and say what in it is not finite.

    `policy` is a directory whose weights stand in where the file has none.
    """
    with safe_open(file, framework="pt") as stored:
        facts = json.loads(stored.metadata()["facts"])
        config = json.loads(stored.metadata()["config"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    model, sequences = _model(config, tensors, policy, Path(file)), _sequences(tensors)
    objective, engine = Objective(**facts["objective"]), EngineConfig(**facts["engine"])
    broken = nonfinite_names(model.state_dict())
    odd = _odd_sequences(model, sequences, objective.temperature, engine.microbatch_tokens)
    optimizer = OptimizerConfig(**facts["optimizer"])
    # the gradient of all weights, of which an adapter's follows
    engine = engine.model_copy(update={"lora": None, "optimizer_bits": 32})
    learner = Learner(model, optimizer, engine, num_updates=1, is_probed=False)
    metrics = learner.update(sequences, objective)
    return Replay(metrics=metrics, sequences=odd, weights=tuple(broken), facts=facts)


def _odd_sequences(
    model: PreTrainedModel,
    sequences: Sequence[TrainingSequence],
    temperature: float,
    microbatch_tokens: int,
) -> tuple[int, ...]:
    """Return the indices of sequences that have a log-probability that is not finite."""
    found = sequence_logprobs(
        model, sequences, temperature=temperature, microbatch_tokens=microbatch_tokens
    )
    numbers = [
        chain(now, sequence.behavior_logprobs or (), sequence.reference_logprobs or ())
        for sequence, now in zip(sequences, found, strict=True)
    ]
    return tuple(index for index, row in enumerate(numbers) if not all(map(isfinite, row)))


def _model(
    config: dict[str, Any],
    tensors: Mapping[str, torch.Tensor],
    policy: str | Path | None,
    file: Path,
) -> PreTrainedModel:
    """Return the model of the file, or of the policy's directory, under rloop's attention."""
    loader: Any = AutoModelForCausalLM
    kind = attention.register()
    weights = {
        name.removeprefix(WEIGHT): tensor
        for name, tensor in tensors.items()
        if name.startswith(WEIGHT)
    }
    if not weights:
        if policy is None:
            raise EngineError(
                f"{file} has no weights in it (the model is large, or an earlier file of the run "
                "has them). Give replay(file, policy=DIR) a policy to do the update with."
            )
        model = load_complete(
            Path(policy), attn_implementation=kind, use_safetensors=True, local_files_only=True
        )
    else:
        settings = AutoConfig.for_model(config.pop("model_type"), **config)
        dtype = next(iter(weights.values())).dtype
        model = loader.from_config(settings, attn_implementation=kind, dtype=dtype)
        model.load_state_dict(weights, strict=False)
    found: PreTrainedModel = model
    if UNKNOWN in tensors:
        leave_out(found, tensors[UNKNOWN])
    return found


def _sequences(tensors: Mapping[str, torch.Tensor]) -> list[TrainingSequence]:
    columns: dict[str, list[Any]] = {name: tensors[name].tolist() for name in SINGLE}
    for name in RAGGED:
        if name in tensors:
            numbers = tensors[name].tolist()
            ends = [0, *tensors[f"{name}.lengths"].cumsum(0).tolist()]
            columns[name] = [numbers[start:end] for start, end in pairwise(ends)]
    rows = zip(*columns.values(), strict=True)
    return [TrainingSequence(**dict(zip(columns, row, strict=True))) for row in rows]
