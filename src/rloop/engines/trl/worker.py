"""One worker: it answers rloop's commands until it is closed, alone or as one of many.

Every worker of a group runs this same code on the same commands; the first one talks to rloop.
"""

import atexit
import os
import sys
from typing import Any

import torch
from datasets import disable_progress_bars
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, SFTConfig

from rloop.config import Recipe
from rloop.engines.native.device import resolve_device, resolve_dtype
from rloop.engines.native.directory import first_line, load_tokenizer, quiet_transformers
from rloop.engines.native.memory import is_out_of_memory
from rloop.engines.native.policies import prepare_policy
from rloop.engines.native.prompts import PromptBuilder
from rloop.engines.native.tune import encode_solutions
from rloop.engines.trl.channel import Channel, QueueChannel
from rloop.engines.trl.crew import Crew
from rloop.engines.trl.inference import Inference
from rloop.engines.trl.messages import (
    WORKER_LOST,
    Close,
    CountPrompts,
    Counts,
    Describe,
    Done,
    Encode,
    Encoded,
    Explore,
    Facts,
    Failed,
    Message,
    Prepare,
    Sample,
    Score,
    Tune,
)
from rloop.engines.trl.options import (
    Site,
    grpo_options,
    refuse_shards_on_cpu,
    sft_options,
)
from rloop.engines.trl.shares import tuned_phases
from rloop.engines.trl.training import train
from rloop.engines.trl.watch import Silence, Watch
from rloop.errors import ConfigError, EngineError, RLoopError
from rloop.types import Place, PolicyRef

NAN_WORDS = "probability tensor contains"
"""In the error of a sampler that is given NaN for probabilities."""


def serve(recipe: Recipe, channel: Channel | None) -> bool:
    """Join the other workers and answer until rloop says `Close`; False when rloop is gone.

    What goes wrong is told to rloop, and raised.
    """
    crew: Crew | None = None
    watch: Watch | None = None
    try:
        disable_progress_bars()
        site = join(recipe)
        crew = Crew(channel)
        if crew.size > 1:
            silence_s = recipe.engine.trl.launch.silence_s
            watch = Watch(crew.rank, crew.size, silence_s, lambda said: leave(said, channel))
        with quiet_transformers():
            Worker(recipe, site, crew).serve()
    except (EOFError, BrokenPipeError):
        return False
    except Exception as error:
        if channel is not None:
            channel.send(explained(error, crew))
        raise
    finally:
        if watch is not None:
            watch.close()
    return True


def leave(said: str, channel: Channel | None) -> None:
    """Tell rloop and the launcher who is silent; end this process, which waits for it for good."""
    silence = Silence(said)
    if channel is not None:
        channel.send(Failed(error=WORKER_LOST, message=said))
    if isinstance(channel, QueueChannel):
        # This process is rloop's: it ends by itself, but not by waiting for the others.
        atexit.register(os._exit, 1)
        return
    get_error_handler().record_exception(silence)
    sys.stderr.write(f"{said}\n")
    sys.stderr.flush()
    os._exit(1)


def join(recipe: Recipe) -> Site:
    """Return where this worker computes, after TRL has checked its options and met the others."""
    launch = recipe.engine.trl.launch
    device = torch.device("cpu") if launch.preset == "cpu" else resolve_device(recipe.engine.device)
    if device.type == "cpu":
        refuse_shards_on_cpu(launch)
    site = Site(
        size=int(os.environ.get("WORLD_SIZE", "1")),
        is_cpu=device.type == "cpu",
        is_bfloat16=resolve_dtype(recipe.engine.dtype, device) == torch.bfloat16,
    )
    place = Place(run=recipe.name, seed=recipe.seed, iteration=0, phase="explore")
    num_steps = recipe.explore.steps
    options = grpo_options(recipe, site, place, num_steps=num_steps, longest_prompt=1)
    _checked(GRPOConfig, options, "grpo")
    for config in tuned_phases(recipe):
        options = sft_options(recipe, config, site, place, longest=1, num_examples=1)
        _checked(SFTConfig, options, "sft")
    return site


def _checked(config: Any, options: dict[str, Any], section: str) -> None:  # noqa: ANN401
    try:
        config(**options)
    except (TypeError, ValueError) as error:
        name = config.__name__
        raise ConfigError(
            f"{name} refuses the recipe or engine.trl.extra.{section}: {first_line(error)}."
        ) from error


def explained(error: Exception, crew: Crew | None) -> Failed:
    """Return an error as one sentence for rloop."""
    if isinstance(error, RLoopError):
        return Failed(error=type(error).__name__, message=str(error))
    if NAN_WORDS in str(error):
        return Failed(
            error="NonFinitePolicy",
            message="The policy gives probabilities that are NaN or infinite: its weights have "
            "grown until they overflow. Lower the learning rate that made it.",
        )
    if is_out_of_memory(error):
        return Failed(
            error="EngineError",
            message=f"A worker ran out of memory ({first_line(error)}). Lower "
            "engine.microbatch_tokens or engine.max_batch, or shard with "
            "engine.trl.launch.preset=fsdp2.",
        )
    if crew is not None and crew.size > 1 and (lost := crew.lost_ranks()):
        ranks = ", ".join(map(str, lost))
        said = f"worker rank {ranks} closed its connection, and the launcher says why"
        return Failed(error=WORKER_LOST, message=said)
    reason = f"{type(error).__name__}: {first_line(error)}"
    return Failed(error="EngineError", message=f"TRL could not go on ({reason}).")


class Worker:
    """Answers commands; trains one phase at a time."""

    def __init__(self, recipe: Recipe, site: Site, crew: Crew) -> None:
        """Compute where the site says."""
        self._recipe = recipe
        self._site = site
        self._crew = crew
        device = torch.device("cpu")
        if not site.is_cpu:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        self._device = device
        self._inference = Inference(recipe, crew, device)

    def serve(self) -> None:
        """Answer until rloop says `Close`."""
        while not isinstance(command := self._crew.receive(), Close):
            if isinstance(command, Explore | Tune):
                train(self._recipe, self._site, self._crew, self._inference, command)
            else:
                self._crew.send(self._answer(command))

    def _answer(self, command: Message) -> Message:
        """Answer what needs no policy in training."""
        if isinstance(command, Prepare):
            return self._prepare(command)
        if isinstance(command, CountPrompts):
            builder = PromptBuilder(self._tokenizer(command.policy), self._recipe.prompt)
            return Counts(values=tuple(len(builder.build(p).ids) for p in command.problems))
        if isinstance(command, Encode):
            return self._encode(command)
        if isinstance(command, Describe):
            return Facts(facts=self._facts())
        if isinstance(command, Sample | Score) and isinstance(command.policy, PolicyRef):
            policy = self._inference.load(command.policy)
            if isinstance(command, Sample):
                return self._inference.sample(policy, command, 0)
            return self._inference.score(policy, command)
        raise EngineError("No policy is in training: explore or fine_tune first.")

    def _prepare(self, command: Prepare) -> Message:
        path = command.directory
        if self._crew.rank == 0:
            path = prepare_policy(
                command.source,
                command.directory,
                seed=command.seed,
                trust_remote_code=self._recipe.policy.trust_remote_code,
                needs_chat_template=self._recipe.prompt.template is None,
            )
            self._inference.load(PolicyRef(path=path, name="base"))
        self._crew.wait()
        return Done(path=path)

    def _encode(self, command: Encode) -> Message:
        policy = self._inference.load(command.policy)
        builder = policy.prompts(self._recipe.prompt)
        template = command.solution_template
        return Encoded(
            examples=tuple(encode_solutions(policy, builder, command.problems, template))
        )

    def _facts(self) -> dict[str, str]:
        name = "cpu" if self._site.is_cpu else torch.cuda.get_device_name(self._device)
        return {
            "device": f"{self._site.size} x {name}" if self._site.size > 1 else name,
            "precision": "bfloat16" if self._site.is_bfloat16 else "float32",
            "threads": str(torch.get_num_threads()),
        }

    def _tokenizer(self, policy: PolicyRef) -> PreTrainedTokenizerBase:
        trusted = self._recipe.policy.trust_remote_code
        return load_tokenizer(policy.path, trust_remote_code=trusted)
