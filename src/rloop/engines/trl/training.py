"""One learning phase in one worker: a trainer of TRL's, and what its policy answers in a pause."""

import gc
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PrinterCallback

from rloop.config import Recipe
from rloop.config_engine import LoraConfig
from rloop.engines.native.directory import load_tokenizer
from rloop.engines.native.policies import LoadedPolicy
from rloop.engines.trl.crew import Crew
from rloop.engines.trl.exploration import Sink, build_explorer
from rloop.engines.trl.inference import Inference, plain_state
from rloop.engines.trl.messages import Done, Explore, Live, Message, Sample, Score, Tune
from rloop.engines.trl.options import Site, grpo_options, sft_options
from rloop.engines.trl.pauses import Pauses, PhaseLeft, require_checkpoint
from rloop.engines.trl.tuning import build_tuner


def train(
    recipe: Recipe, site: Site, crew: Crew, inference: Inference, command: Explore | Tune
) -> None:
    """Run a phase until rloop asks for something that is none of it; then free its memory."""
    resume_from = command.resume_from
    if resume_from is not None:
        require_checkpoint(resume_from)
    inference.drop()
    training = Training(recipe, site, crew, inference, command)
    try:
        training.trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    except PhaseLeft:
        pass
    finally:
        del training
        inference.drop()
        gc.collect()
        if not site.is_cpu:
            torch.cuda.empty_cache()


class Training:
    """Holds the trainer."""

    def __init__(
        self,
        recipe: Recipe,
        site: Site,
        crew: Crew,
        inference: Inference,
        command: Explore | Tune,
    ) -> None:
        """Load the start policy into a trainer."""
        self._recipe = recipe
        self._site = site
        self._crew = crew
        self._inference = inference
        self._command = command
        trusted = recipe.policy.trust_remote_code
        tokenizer = load_tokenizer(command.start.path, trust_remote_code=trusted)
        if isinstance(command, Explore):
            self.trainer = self._explorer(command, tokenizer)
        else:
            self.trainer = self._tuner(command, tokenizer)
        self.trainer.remove_callback(PrinterCallback)

    def _explorer(self, command: Explore, tokenizer: PreTrainedTokenizerBase) -> Any:  # noqa: ANN401
        explore = self._recipe.explore
        num_steps = len(command.rows) // explore.prompts_per_step
        sink = Sink(self._recipe, self._crew, tokenizer, command)
        options = grpo_options(
            self._recipe,
            self._site,
            command.place,
            num_steps=num_steps,
            longest_prompt=sink.longest_prompt,
        )
        return build_explorer(
            sink,
            options,
            command,
            processing_class=tokenizer,
            callbacks=[self._pauses(num_steps, explore.updates_per_step)],
            peft_config=peft_config(self._recipe.engine.lora),
        )

    def _tuner(self, command: Tune, tokenizer: PreTrainedTokenizerBase) -> Any:  # noqa: ANN401
        recipe = self._recipe
        config = recipe.tuning(command.place.phase)
        assert config is not None, "rloop asks for a phase that the recipe has"
        longest = max(len(e.prompt_ids) + len(e.completion_ids) for e in command.examples)
        return build_tuner(
            sft_options(
                recipe,
                config,
                self._site,
                command.place,
                longest=longest,
                num_examples=len(command.examples),
            ),
            command,
            processing_class=tokenizer,
            callbacks=[self._pauses(-(-len(command.examples) // config.batch_size), 1)],
            peft_config=peft_config(recipe.engine.lora),
        )

    def _pauses(self, num_steps: int, updates_per_step: int) -> Pauses:
        return Pauses(
            self._crew, self._answer, updates_per_step=updates_per_step, num_steps=num_steps
        )

    def _answer(self, command: Live, version: int) -> Message:
        """Answer with a plain copy of the policy as it is after `version` updates."""
        start = self._command.start
        policy: LoadedPolicy = self._inference.copy(start, version, self._weights)
        if isinstance(command, Sample):
            return self._inference.sample(policy, command, version)
        if isinstance(command, Score):
            return self._inference.score(policy, command)
        self._inference.save(policy, command, start)
        return Done(path=command.directory)

    def _weights(self) -> Mapping[str, Tensor]:
        state = self.trainer.accelerator.get_state_dict(self.trainer.model_wrapped)
        return plain_state(state, self._recipe.engine.lora) if self._crew.rank == 0 else {}


def peft_config(lora: LoraConfig | None) -> Any:  # noqa: ANN401
    """Return the recipe's adapters as peft knows them; None without."""
    if lora is None:
        return None
    import peft

    options: dict[str, Any] = {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": list(lora.target_modules) if lora.target_modules else "all-linear",
        "task_type": "CAUSAL_LM",
    }
    return peft.LoraConfig(**options)
