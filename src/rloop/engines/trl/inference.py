"""A policy outside of training, in every worker: sampled, scored and saved by rloop's own code.

The policy in training is copied into a plain model first, whatever shards and wraps it; so the same
weights, in the same precision, are evaluated and saved.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from transformers import PreTrainedModel

from rloop.config import Recipe
from rloop.config_engine import LoraConfig
from rloop.engines.native import attention
from rloop.engines.native.device import resolve_dtype
from rloop.engines.native.finite import check_logits
from rloop.engines.native.learner import token_budget
from rloop.engines.native.microbatch import (
    TrainingSequence,
    check_architecture,
    sequence_logprobs,
)
from rloop.engines.native.policies import LoadedPolicy, load_policy, save_policy
from rloop.engines.native.rounding import StochasticRounding
from rloop.engines.native.sampler import Request, Sampler, row_budget
from rloop.engines.trl.crew import Crew
from rloop.engines.trl.messages import Sample, Sampled, SavePolicy, Score, Scores
from rloop.errors import EngineError
from rloop.types import Completion, PolicyRef, stable_hash

Item = TypeVar("Item")
Gather = Callable[[], Mapping[str, Tensor]]


class Inference:
    """Holds one plain model at a time."""

    def __init__(self, recipe: Recipe, crew: Crew, device: torch.device) -> None:
        """Load nothing yet."""
        self._recipe = recipe
        self._crew = crew
        self._device = device
        self._dtype = resolve_dtype(recipe.engine.dtype, device)
        self._tokens = token_budget(recipe.engine)
        self._rows = row_budget(recipe.engine.max_batch)
        self._loaded: LoadedPolicy | None = None
        self._source: PolicyRef | None = None
        self._version: tuple[PolicyRef, int] | None = None

    def load(self, policy: PolicyRef) -> LoadedPolicy:
        """Return the policy of a directory, loading it unless it is here already."""
        if self._loaded is None or self._source != policy:
            self._loaded = None
            self._loaded = self._read(policy)
            self._source, self._version = policy, None
        return self._loaded

    def copy(self, start: PolicyRef, version: int, gather: Gather) -> LoadedPolicy:
        """Return the start policy with the weights of training after `version` updates.

        `gather` returns all of them in the first worker, which hands them to the others.
        """
        if self._loaded is None or self._version != (start, version):
            loaded = self._loaded if self._version and self._version[0] == start else None
            self._loaded = loaded or self.load(start)
            seed = stable_hash(self._recipe.seed, start.name, "rounding")
            self._take(self._loaded.model, gather(), StochasticRounding(seed))
            self._source, self._version = None, (start, version)
        return self._loaded

    @torch.no_grad()
    def _take(
        self, model: PreTrainedModel, state: Mapping[str, Tensor], rounding: StochasticRounding
    ) -> None:
        weights = {
            name: weight
            for name, weight in model.state_dict().items()
            if name not in model.all_tied_weights_keys
        }
        if self._crew.rank == 0:
            _require_names(state, list(weights))
        for name, weight in weights.items():
            if self._crew.rank == 0:
                rounding.write(name, state[name], weight)
            if self._crew.size > 1:
                distributed.broadcast(weight, 0)

    def sample(self, policy: LoadedPolicy, command: Sample, version: int) -> Sampled:
        """Draw completions, every worker those of its share of the problems."""
        prompts = policy.prompts(self._recipe.prompt)
        requests = [
            Request(prompt, command.place.stream_seed(problem.problem_id, member))
            for problem in self._share(command.problems)
            for prompt in [prompts.build(problem)]
            for member in range(command.num_samples)
        ]
        sampler = Sampler(
            policy,
            max_batch=self._rows,
            prefill_tokens=self._recipe.engine.microbatch_tokens,
            is_fused=self._recipe.engine.fused,
        )
        drawn = dict(sampler.sample(requests, command.settings))
        own = [drawn[index] for index in range(len(requests))]
        completions = self._together(own, Completion, command.num_samples)
        return Sampled(
            completions=tuple(completions),
            template_version=prompts.version,
            policy_version=version,
        )

    def score(self, policy: LoadedPolicy, command: Score) -> Scores:
        """Return log-probabilities, every worker those of its share of the examples."""
        check_architecture(policy.model)
        sequences = [
            TrainingSequence(prompt_ids=e.prompt_ids, completion_ids=e.completion_ids)
            for e in self._share(command.examples)
        ]
        own = self._tokens.within(
            lambda tokens: sequence_logprobs(
                policy.model,
                sequences,
                temperature=command.temperature or 1.0,
                microbatch_tokens=tokens,
            )
        )
        return Scores(logprobs=tuple(self._together(own, tuple[float, ...], 1)))

    def save(self, policy: LoadedPolicy, command: SavePolicy, start: PolicyRef) -> None:
        """Write the policy as a directory, by the first worker; the others wait for it."""
        check_logits(policy.model, command.name)
        if self._crew.rank == 0:
            save_policy(policy.model, command.directory, source_dir=start.path)
        self._crew.wait()

    def drop(self) -> None:
        """Free the model."""
        self._loaded = self._source = self._version = None

    def _read(self, policy: PolicyRef) -> LoadedPolicy:
        # Loading must not move the random stream of a training that goes on.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            loaded = load_policy(
                policy.path,
                dtype=self._dtype,
                device=self._device,
                trust_remote_code=self._recipe.policy.trust_remote_code,
                attn_implementation=attention.register(),
                prompt=self._recipe.prompt,
            )
        explore, evaluate = self._recipe.explore.sampling, self._recipe.evaluate.sampling
        longest = max(explore.max_completion_tokens, evaluate.max_completion_tokens)
        attention.refuse_windows(loaded.model.config, self._recipe.prompt.max_tokens + longest)
        return loaded

    def _share(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[self._crew.rank :: self._crew.size]

    def _together(self, own: Sequence[Item], kind: Any, width: int) -> list[Item]:  # noqa: ANN401
        """Return all workers' items in the order of what was shared, `width` to each of it."""
        shares = self._crew.gather(own, kind)
        num_rows = sum(map(len, shares)) // width
        return [
            item
            for row in range(num_rows)
            for place in [row // self._crew.size * width]
            for item in shares[row % self._crew.size][place : place + width]
        ]


def plain_state(state: Mapping[str, Tensor], lora: LoraConfig | None) -> dict[str, Tensor]:
    """Return a model's weights by their own names, adapters of peft merged in, in float32.

    W = W_start + alpha / rank * B A
    """
    if lora is None:
        return dict(state)
    named = {name.removeprefix("base_model.model."): weight for name, weight in state.items()}
    merged: dict[str, Tensor] = {}
    for name, weight in named.items():
        layer, is_adapted, _ = name.partition(".base_layer.weight")
        if ".lora_A." in name or ".lora_B." in name:
            continue
        if not is_adapted:
            merged[name.replace(".base_layer.", ".")] = weight
            continue
        a_RI = named[f"{layer}.lora_A.default.weight"].float()
        b_OR = named[f"{layer}.lora_B.default.weight"].float()
        change_OI = (b_OR @ a_RI) * (lora.alpha / lora.rank)
        merged[f"{layer}.weight"] = weight.float() + change_OI
    return merged


def _require_names(state: Mapping[str, Tensor], wanted: Sequence[str]) -> None:
    """Raise EngineError unless the gathered weights have every name."""
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise EngineError(
            f"accelerate gathered a policy without {len(missing)} of its weights, such as "
            f"{missing[0]}. For DeepSpeed ZeRO-3 set zero3_save_16bit_model: true."
        )
