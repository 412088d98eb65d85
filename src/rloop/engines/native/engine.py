"""The native engine: one model on one device that samples and learns, alive across phases."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from rloop.config import OptimizerConfig, Recipe, SamplingConfig
from rloop.engines.base import (
    LIVE,
    ExploreStep,
    FinetuneStep,
    PromptReport,
    Successes,
    Verify,
)
from rloop.engines.native import attention
from rloop.engines.native.adapters import target_weights
from rloop.engines.native.averaging import mean_weights
from rloop.engines.native.device import resolve_device, resolve_dtype
from rloop.engines.native.directory import first_line, written_whole
from rloop.engines.native.finite import check_logits
from rloop.engines.native.learner import Learner, token_budget
from rloop.engines.native.microbatch import (
    TrainingSequence,
    check_architecture,
    sequence_logprobs,
)
from rloop.engines.native.optimizer import require_torchao
from rloop.engines.native.order import ProblemOrder
from rloop.engines.native.policies import (
    LoadedPolicy,
    load_policy,
    prepare_policy,
    report_prompts,
    save_policy,
)
from rloop.engines.native.reinforce import Reference, Reinforcer
from rloop.engines.native.rollout import Roller
from rloop.engines.native.sampler import Sampler, row_budget
from rloop.engines.native.skipped import write_skipped
from rloop.engines.native.tune import encode_solutions, tune, updates_per_epoch
from rloop.engines.native.vllm_model import VllmModel, require_vllm
from rloop.engines.native.vllm_sampler import VllmSampler
from rloop.errors import EngineError
from rloop.types import Example, Group, Place, PolicyRef, Problem, stable_hash

STATE_FILE = "exploration.json"


class NativeEngine:
    """Implements `engines.base.Engine` in plain PyTorch on Hugging Face models."""

    def __init__(self, recipe: Recipe, verify: Verify) -> None:
        """Choose device and precision; no model is loaded yet."""
        self._recipe = recipe
        self._verify = verify
        self._device = resolve_device(recipe.engine.device)
        self._dtype = resolve_dtype(recipe.engine.dtype, self._device)
        self._attention = attention.register()
        # On Hopper and later, torch 2.11 and on prefers cuDNN's attention, which builds a plan for
        # each shape: decoding grows by a token a step, and would build one every time.
        torch.backends.cuda.enable_cudnn_sdp(enabled=False)
        self._policy: LoadedPolicy | None = None
        self._source: PolicyRef | None = None
        self._is_changed = False
        self._learner: Learner | None = None
        self._reinforcer: Reinforcer | None = None
        self._vllm: VllmModel | None = None
        self._tokens = token_budget(recipe.engine)
        self._rows = row_budget(recipe.engine.max_batch)
        if recipe.explore.sampler == "vllm":
            require_vllm(self._device)
        if recipe.engine.optimizer_bits == 8:
            require_torchao()

    def prepare(self, source: str, directory: Path, *, seed: int) -> PolicyRef:
        """Turn the recipe's `policy.path` into a directory, and load it once as a check."""
        path = prepare_policy(
            source,
            directory,
            seed=seed,
            trust_remote_code=self._recipe.policy.trust_remote_code,
            needs_chat_template=self._recipe.prompt.template is None,
        )
        policy = PolicyRef(path=path, name="base")
        model = self._load(policy).model
        if self._recipe.engine.lora is not None:
            target_weights(model, self._recipe.engine.lora)
        return policy

    def fit_prompts(self, policy: PolicyRef, problems: Sequence[Problem]) -> PromptReport:
        """Part problems by whether their prompt fits `prompt.max_tokens`; show the first one."""
        return report_prompts(self._load(policy), self._recipe.prompt, problems)

    def explore(
        self,
        start: PolicyRef,
        problems: Sequence[Problem],
        place: Place,
        *,
        num_steps: int,
        problem_weights: Mapping[str, float] | None = None,
        replayed: Successes | None = None,
        resume_from: Path | None = None,
    ) -> Iterator[ExploreStep]:
        """Begin RL from `start` with a fresh optimizer; return its steps."""
        config = self._recipe.explore
        policy = self._load(start)
        num_updates = num_steps * config.updates_per_step
        learner = self._begin_learning(policy, config.optimizer, num_updates, place)
        reinforcer = Reinforcer(
            config,
            self._roller(policy),
            learner,
            ProblemOrder(problems, place, problem_weights),
            place,
            self._reference(start, policy.model, learner),
            replayed or {},
        )
        self._reinforcer = reinforcer
        if resume_from is not None:
            _restore(resume_from, learner, reinforcer)
        self._is_changed = True
        return reinforcer.run(num_steps)

    def fine_tune(
        self,
        start: PolicyRef,
        examples: Sequence[Example],
        place: Place,
        *,
        resume_from: Path | None = None,
    ) -> Iterator[FinetuneStep]:
        """Begin weighted SFT from `start` on stored token ids; return its updates."""
        config = self._recipe.tuning(place.phase)
        if config is None:
            raise EngineError(f"The recipe has no {place.phase} section.")
        policy = self._load(start)
        num_updates = config.epochs * updates_per_epoch(len(examples), config.batch_size)
        learner = self._begin_learning(policy, config.optimizer, num_updates, place)
        self._is_changed = True
        if resume_from is not None:
            _restore(resume_from, learner)
        return tune(
            learner,
            examples,
            place,
            epochs=config.epochs,
            batch_size=config.batch_size,
            num_done=learner.num_updates_done,
        )

    def sample(
        self,
        policy: PolicyRef | Literal["live"],
        problems: Sequence[Problem],
        num_samples: int,
        place: Place,
        sampling: SamplingConfig | None = None,
    ) -> Iterator[Group]:
        """Sample and judge groups, yielded as they finish."""
        loaded = self._find(policy)
        version = self._learner.policy_version if policy == LIVE and self._learner else 0
        yield from self._roller(loaded).roll_out(
            problems,
            num_samples,
            sampling or self._recipe.evaluate.sampling,
            place,
            policy_version=version,
        )

    def logprobs(
        self,
        policy: PolicyRef | Literal["live"],
        examples: Sequence[Example],
        *,
        temperature: float,
    ) -> list[tuple[float, ...]]:
        """Return [T] log-probabilities of each completion's tokens, as the learner sees them."""
        model = self._find(policy).model
        check_architecture(model)
        sequences = [
            TrainingSequence(prompt_ids=e.prompt_ids, completion_ids=e.completion_ids)
            for e in examples
        ]
        return self._tokens.within(
            lambda tokens: sequence_logprobs(
                model, sequences, temperature=temperature, microbatch_tokens=tokens
            )
        )

    def examples_from_solutions(
        self, policy: PolicyRef, problems: Sequence[Problem], solution_template: str
    ) -> list[Example]:
        """Tokenise prompts and solutions for a cold start; completions end as a turn does."""
        loaded = self._load(policy)
        builder = loaded.prompts(self._recipe.prompt)
        return encode_solutions(loaded, builder, problems, solution_template)

    def save_policy(self, directory: Path, name: str, *, goes_on: bool = False) -> PolicyRef:
        """Write the policy in training, in the precision in which it was sampled.

        NonFinitePolicy says that its weights, or its logits on a probe, are not finite.
        """
        policy, source = self._live(), self._source
        assert source is not None, "a live policy was loaded from somewhere"
        check_logits(policy.model, name)
        if not goes_on:
            self._end_learning()
        save_policy(policy.model, directory, source_dir=source.path)
        saved = PolicyRef(path=directory, name=name)
        if not goes_on:
            self._source, self._is_changed = saved, False
        return saved

    def average(self, policies: Sequence[PolicyRef], directory: Path, name: str) -> PolicyRef:
        """Write the mean of the policies, in their precision; one of them is loaded at a time."""
        self._end_learning()
        self._policy = None
        states = (self._read(policy).model.state_dict() for policy in policies)
        mean = mean_weights(states, seed=stable_hash(self._recipe.seed, name, "average"))
        model = self._load(policies[0]).model
        save_policy(model, directory, source_dir=policies[0].path, state=mean)
        return PolicyRef(path=directory, name=name)

    def save_state(self, directory: Path) -> None:
        """Write the learner, and an exploration's order, whole or not at all."""
        if self._learner is None:
            raise EngineError("No policy is in training: there is no state to save.")
        with written_whole(directory, needed_bytes=0) as partial:
            self._learner.save(partial)
            if self._reinforcer is not None:
                (partial / STATE_FILE).write_text(json.dumps(self._reinforcer.state()))

    def save_skipped(self, stem: Path, place: Place) -> Path | None:
        """Write the first update skipped since the last call, for `replay.replay`."""
        skipped = self._learner.skipped if self._learner is not None else None
        if self._learner is None or skipped is None:
            return None
        self._learner.skipped = None
        file = stem.with_name(f"{stem.name}.safetensors")
        return file if write_skipped(skipped, file, place) else None

    def describe(self) -> Mapping[str, str]:
        """Return device, precision, threads and the number of parameters."""
        facts = {
            "device": _device_name(self._device),
            "precision": str(self._dtype).removeprefix("torch."),
            "threads": str(torch.get_num_threads()),
        }
        if self._policy is not None:
            count = self._policy.model.num_parameters()
            facts["parameters"] = f"{count / 1e6:,.1f} M"
        return facts

    def close(self) -> None:
        """Free the model and the device memory."""
        self._end_learning()
        if self._vllm is not None:
            self._vllm.close()
        self._policy = self._source = self._vllm = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _load(self, policy: PolicyRef) -> LoadedPolicy:
        """Return the policy in memory, loading it unless it is what the model holds already."""
        if self._policy is not None and self._source == policy and not self._is_changed:
            return self._policy
        self._end_learning()
        self._policy = None
        loaded = self._read(policy)
        attention.refuse_windows(loaded.model.config, self._longest())
        self._policy, self._source, self._is_changed = loaded, policy, False
        return loaded

    def _read(self, policy: PolicyRef) -> LoadedPolicy:
        return load_policy(
            policy.path,
            dtype=self._dtype,
            device=self._device,
            trust_remote_code=self._recipe.policy.trust_remote_code,
            attn_implementation=self._attention,
            prompt=self._recipe.prompt,
        )

    def _find(self, policy: PolicyRef | Literal["live"]) -> LoadedPolicy:
        return self._live() if policy == LIVE else self._load(policy)

    def _live(self) -> LoadedPolicy:
        if self._policy is None:
            raise EngineError("No policy is in training: explore or fine_tune first.")
        return self._policy

    def _longest(self) -> int:
        """Return the most tokens that a prompt and its completion can have together."""
        explore, evaluate = self._recipe.explore.sampling, self._recipe.evaluate.sampling
        longest = max(explore.max_completion_tokens, evaluate.max_completion_tokens)
        return self._recipe.prompt.max_tokens + longest

    def _roller(self, policy: LoadedPolicy) -> Roller:
        prompts = policy.prompts(self._recipe.prompt)
        return Roller(
            sampler=self._sampler(policy),
            prompts=prompts,
            verify=self._verify,
            rewards=self._recipe.rewards,
        )

    def _sampler(self, policy: LoadedPolicy) -> Sampler | VllmSampler:
        """Return what draws completions, in exploration and evaluation alike; vLLM stays alive."""
        config = self._recipe.engine
        if self._recipe.explore.sampler == "native":
            return Sampler(
                policy,
                max_batch=self._rows,
                prefill_tokens=config.microbatch_tokens,
                is_fused=config.fused,
            )
        if self._vllm is None:
            assert self._source is not None, "a policy in memory was loaded from somewhere"
            self._vllm = VllmModel(
                policy.model,
                self._source.path,
                max_length=min(self._longest(), policy.context or self._longest()),
                max_batch=config.max_batch,
                pass_tokens=config.microbatch_tokens,
            )
        return VllmSampler(policy, self._vllm)

    def _begin_learning(
        self, policy: LoadedPolicy, optimizer: OptimizerConfig, num_updates: int, place: Place
    ) -> Learner:
        self._end_learning()
        self._learner = Learner(
            policy.model,
            optimizer,
            self._recipe.engine,
            num_updates=num_updates,
            budget=self._tokens,
            seed=stable_hash(place.seed, place.iteration, place.phase, "adapters"),
        )
        return self._learner

    def _end_learning(self) -> None:
        if self._learner is not None:
            self._learner.close()
        self._learner = self._reinforcer = None

    def _reference(self, start: PolicyRef, trained: PreTrainedModel, learner: Learner) -> Reference:
        """Return what fills in reference logprobs: nothing to do without a divergence penalty.

        With adapters no second model is needed: the one in training without them.
        """
        explore = self._recipe.explore
        if explore.kl_coef == 0:
            return list
        has_adapters = self._recipe.engine.lora is not None
        model = trained if has_adapters else self._read(start).model
        temperature = explore.sampling.temperature or 1.0

        def fill(sequences: Sequence[TrainingSequence]) -> list[TrainingSequence]:
            with learner.at_start() if has_adapters else nullcontext():
                found = self._tokens.within(
                    lambda tokens: sequence_logprobs(
                        model, sequences, temperature=temperature, microbatch_tokens=tokens
                    )
                )
            pairs = zip(sequences, found, strict=True)
            return [replace(s, reference_logprobs=logprobs) for s, logprobs in pairs]

        return fill


def _restore(directory: Path, learner: Learner, reinforcer: Reinforcer | None = None) -> None:
    """Load a saved state; EngineError says that it is missing or damaged."""
    try:
        learner.load(directory)
        if reinforcer is not None:
            reinforcer.restore(json.loads((directory / STATE_FILE).read_text()))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EngineError(
            f"The saved state {directory} is missing or damaged ({first_line(error)}). Restore it "
            "from a backup, then `rloop resume` again, or begin a new run."
        ) from error


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
