"""The native engine: one model on one device that samples and learns, and stays alive across
phases."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError

from rloop.algo.objective import Objective
from rloop.engines.base import Sampled, SampleRequest, TrainingSequence
from rloop.engines.native import attention
from rloop.engines.native.device import resolve_device, resolve_dtype
from rloop.engines.native.learner import Learner, token_budget
from rloop.engines.native.logprobs import check_architecture, sequence_logprobs
from rloop.engines.native.lora import target_weights
from rloop.engines.native.memory import explained, free
from rloop.engines.native.optimizer import resident_bytes
from rloop.engines.native.ranks import Ranks
from rloop.engines.native.sampler import Sampler, row_budget
from rloop.engines.native.vllm import VllmModel, samples_with_vllm
from rloop.errors import EngineError
from rloop.policies.checkpoint import LoadedPolicy, load_policy, save_policy
from rloop.policies.directory import first_line, written_whole
from rloop.policies.finite import check_logits
from rloop.policies.prepare import prepare_policy
from rloop.policies.renderer import Renderer
from rloop.recipe.config import OptimizerConfig, Recipe, SamplingConfig
from rloop.types import PolicyRef

log = logging.getLogger(__name__)


class NativeEngine:
    """Implements `engines.base.Engine` in plain PyTorch on Hugging Face models."""

    def __init__(self, recipe: Recipe, ranks: Ranks | None = None) -> None:
        """Choose device and precision; no model is loaded yet.

        With `ranks`, several processes do each update together, each with a part of the sequences.
        """
        self._ranks = ranks
        self._recipe = recipe
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
        self._start: LoadedPolicy | None = None
        self._vllm: VllmModel | None = None
        self._tokens = token_budget(recipe.engine)
        self._rows = row_budget(recipe.engine.max_batch)
        self._uses_vllm = samples_with_vllm(
            recipe.explore.sampler, self._device, is_alone=ranks is None
        )

    def prepare(self, source: str, directory: Path, *, seed: int) -> PolicyRef:
        """Turn the recipe's `policy.path` into a Hugging Face directory, check it and load it."""
        path = prepare_policy(
            source,
            directory,
            seed=seed,
            trust_remote_code=self._recipe.policy.trust_remote_code,
            needs_chat_template=self._recipe.prompt.template is None,
        )
        policy = PolicyRef(path=path, name="base")
        self.load(policy)
        if self._recipe.engine.lora is not None:
            target_weights(self._held().model, self._recipe.engine.lora)
        return policy

    def load(self, policy: PolicyRef) -> None:
        """Load this policy, without an optimizer; it is read again only if the model has
        changed."""
        self._end_learning()
        is_here = self._source is not None and self._source.path == policy.path
        if self._policy is not None and is_here and not self._is_changed:
            return
        self._policy = None
        loaded = self._read(policy)
        attention.refuse_windows(loaded.model.config, self._longest())
        self._policy, self._source, self._is_changed = loaded, policy, False

    @property
    def renderer(self) -> Renderer:
        """The renderer of the loaded policy."""
        return self._held().renderer

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield (index of the request, completion) in the order in which they finish."""
        policy, vllm = self._held(), self._started_vllm()
        if vllm is not None:
            return vllm.sample(policy, requests, settings)
        config = self._recipe.engine
        sampler = Sampler(
            policy,
            max_batch=self._rows,
            prefill_tokens=config.microbatch_tokens,
            is_fused=config.fused,
        )
        return sampler.sample(requests, settings)

    def begin(self, optimizer: OptimizerConfig, *, seed: int, state: Path | None = None) -> None:
        """Begin to train the loaded policy, with a fresh optimizer or a saved one."""
        self._end_learning()
        self._let_vllm_sleep()
        self._learner = Learner(
            self._held().model,
            optimizer,
            self._recipe.engine,
            budget=self._tokens,
            seed=seed,
            ranks=self._ranks,
        )
        if state is None:
            return
        self._is_changed = True
        try:
            self._learner.load(state)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise EngineError(
                f"The saved state {state} is missing or damaged ({first_line(error)}). Restore it "
                "from a backup, then `rloop resume` again, or begin a new run."
            ) from error

    def update(
        self, sequences: Sequence[TrainingSequence], objective: Objective, *, learning_rate: float
    ) -> dict[str, float]:
        """Do one optimizer update on all the sequences and return its metrics."""
        self._is_changed = True
        self._let_vllm_sleep()
        return self._learning().update(sequences, objective, learning_rate=learning_rate)

    def logprobs(
        self, sequences: Sequence[TrainingSequence], *, temperature: float, at_start: bool = False
    ) -> list[tuple[float, ...]]:
        """Return [T] log-probabilities of each completion's tokens, from the learner.

        With adapters the start policy is the policy in training without them; otherwise it is a
        second model in memory.
        """
        model = self._held().model
        self._let_vllm_sleep()
        as_it_is: AbstractContextManager[None] = nullcontext()
        if at_start and self._recipe.engine.lora is not None:
            as_it_is = self._learning().at_start()
        elif at_start:
            assert self._source is not None, "a policy in training was loaded from somewhere"
            self._start = self._start or self._read(self._source)
            model = self._start.model
        check_architecture(model)
        with as_it_is:
            return self._tokens.within(
                lambda tokens: sequence_logprobs(
                    model, sequences, temperature=temperature, microbatch_tokens=tokens
                )
            )

    def save_policy(self, directory: Path, name: str) -> PolicyRef:
        """Write the loaded policy, in the precision in which it is sampled.

        Raises NonFinitePolicy if its weights, or its logits on a probe, are not finite.
        """
        model, source = self._held().model, self._source
        assert source is not None, "a policy in memory was loaded from somewhere"
        check_logits(model, name)
        self._end_learning()
        save_policy(model, directory, source_dir=source.path)
        policy = PolicyRef(path=directory, name=name)
        self.saved(policy)
        return policy

    def copy_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Load these weights, a state dict, for example of a model that TRL trains."""
        self._is_changed = True
        self._held().model.load_state_dict(weights)

    def saved(self, policy: PolicyRef) -> None:
        """End training: the loaded policy has been written as this one."""
        self._end_learning()
        self._source, self._is_changed = policy, False

    def save_state(self, directory: Path) -> None:
        """Write masters and moments, completely or not at all; rank 0 writes for all."""
        if self._ranks is not None and self._ranks.rank > 0:
            self._learning().save(directory)
            return
        with written_whole(directory, needed_bytes=0) as partial:
            self._learning().save(partial)

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
        if self._device.type != "cpu":
            free()

    def _read(self, policy: PolicyRef) -> LoadedPolicy:
        remedy = "Add --set engine.dtype=bfloat16, or use a smaller model."
        with explained(f"the policy {policy.path}", remedy):
            return load_policy(
                policy.path,
                dtype=self._dtype,
                device=self._device,
                trust_remote_code=self._recipe.policy.trust_remote_code,
                attn_implementation=self._attention,
                prompt=self._recipe.prompt,
            )

    def _held(self) -> LoadedPolicy:
        if self._policy is None:
            raise EngineError("The engine has no policy: load one first.")
        return self._policy

    def _learning(self) -> Learner:
        if self._learner is None:
            raise EngineError("No policy is in training: begin first.")
        return self._learner

    def _longest(self) -> int:
        """Return the largest number of tokens in a prompt and its completion together."""
        explore, evaluate = self._recipe.explore.sampling, self._recipe.evaluate.sampling
        longest = max(explore.max_completion_tokens, evaluate.max_completion_tokens)
        return self._recipe.prompt.max_tokens + longest

    def _started_vllm(self) -> VllmModel | None:
        """Return the vLLM sampler, which stays alive; None for the native sampler."""
        if not self._uses_vllm or self._vllm is not None:
            return self._vllm
        assert self._source is not None, "a policy in memory was loaded from somewhere"
        config, policy = self._recipe.engine, self._held()
        longest = self._longest()
        try:
            self._vllm = VllmModel(
                policy.model,
                self._source.path,
                max_length=min(longest, policy.renderer.context or longest),
                max_batch=config.max_batch,
                pass_tokens=config.microbatch_tokens,
                learner_bytes=resident_bytes(policy.model, config),
            )
        except EngineError as error:
            if self._recipe.explore.sampler == "vllm":
                raise
            log.warning("explore.sampler=auto samples without vLLM: %s", error)
            self._uses_vllm = False
        return self._vllm

    def _let_vllm_sleep(self) -> None:
        if self._vllm is not None:
            self._vllm.sleep()

    def _end_learning(self) -> None:
        if self._learner is not None:
            self._learner.close()
        self._learner = self._start = None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
