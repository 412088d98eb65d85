"""Exploration by TRL's GRPOTrainer: its reward function is the sink of every completion.

The prompts come in rloop's own order. The reward function gives what all processes sampled to
rloop, before anything filters it, and gets rloop's advantages back; TRL, told not to scale,
subtracts their group's mean, which is zero.
"""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer

from rloop.config import Recipe
from rloop.engines.native.completions import (
    CompletionText,
    completion_text,
    find_turn_end,
)
from rloop.engines.native.prompts import Prompt, PromptBuilder
from rloop.engines.trl.behavior import behavior_logprobs
from rloop.engines.trl.crew import Crew
from rloop.engines.trl.messages import Advantages, Explore, Sampled
from rloop.engines.trl.pauses import PhaseLeft
from rloop.errors import EngineError
from rloop.types import Completion, Problem


class Sink:
    """The reward function of one exploration, in every worker."""

    def __init__(
        self, recipe: Recipe, crew: Crew, tokenizer: PreTrainedTokenizerBase, command: Explore
    ) -> None:
        """Build every prompt, and check that TRL will see the same tokens."""
        self._recipe = recipe
        self._crew = crew
        self._tokenizer = tokenizer
        self._builder = PromptBuilder(tokenizer, recipe.prompt)
        self._text = CompletionText(tokenizer)
        self._prompts = [self._builder.build(problem) for problem in command.problems]
        self.longest_prompt = max(len(prompt.ids) for prompt in self._prompts)
        self.trainer: GRPOTrainer | None = None
        self.data = Dataset.from_dict(
            {
                "prompt": [self._as_trl_has_it(command.problems[row]) for row in command.rows],
                "problem": list(command.rows),
            }
        )
        for problem, prompt in zip(command.problems, self._prompts, strict=True):
            self._check_tokens(problem, prompt)

    def join(self, trainer: Any) -> None:  # noqa: ANN401
        """Take the trainer; refuse one that would run on over the end of a turn."""
        end = find_turn_end(self._tokenizer, self._recipe.prompt)
        if end and end.token_id is not None and end.token_id not in trainer.eos_token_ids:
            raise EngineError(
                f"TRL ends a completion with {self._tokenizer.eos_token!r} alone, and the chat "
                f"template ends a turn with {end.text!r}. Add {end.token_id} to eos_token_id in "
                "the policy's generation_config.json, or use engine.name=native."
            )
        ends = (*trainer.eos_token_ids, self._tokenizer.pad_token_id)
        self._text = completion_text(self._tokenizer, self._recipe.prompt, ends)
        self.trainer = trainer

    def rewards(
        self, *, completion_ids: Sequence[Sequence[int]], problem: Sequence[int], **_: object
    ) -> list[float]:
        """Hand over this process's completions with all others'; return their advantages."""
        own = self._completions(problem, completion_ids)
        shares = self._crew.gather(own, Completion)
        self._crew.send(
            Sampled(
                completions=tuple(completion for share in shares for completion in share),
                template_version=self._builder.version,
                policy_version=self._trainer().state.global_step,
            )
        )
        command = self._crew.receive()
        if not isinstance(command, Advantages):
            self._crew.put_back(command)
            raise PhaseLeft
        begin = self._crew.rank * len(own)
        return list(command.values[begin : begin + len(own)])

    def _completions(
        self, problem: Sequence[int], completion_ids: Sequence[Sequence[int]]
    ) -> list[Completion]:
        trainer = self._trainer()
        prompts = [self._prompts[index] for index in problem]
        pairs = [(prompt.ids, ids) for prompt, ids in zip(prompts, completion_ids, strict=True)]
        logprobs = behavior_logprobs(
            trainer.model,
            pairs,
            temperature=self._recipe.explore.sampling.temperature,
            rows=trainer.args.per_device_train_batch_size,
            autocast=trainer.accelerator.autocast(),
        )
        ends = {*trainer.eos_token_ids}
        return [
            Completion(
                prompt_text=prompt.text,
                prompt_ids=prompt.ids,
                completion_text=self._text.of(ids),
                completion_ids=tuple(ids),
                behavior_logprobs=row,
                finish_reason="stop" if ids[-1] in ends else "length",
            )
            for prompt, ids, row in zip(prompts, completion_ids, logprobs, strict=True)
        ]

    def _trainer(self) -> Any:  # noqa: ANN401
        assert self.trainer is not None, "the trainer that calls its reward function is built"
        return self.trainer

    def _as_trl_has_it(self, problem: Problem) -> Any:  # noqa: ANN401
        """Return text for a template of the recipe's, messages for the model's own."""
        if self._recipe.prompt.template is not None:
            return self._builder.build(problem).text
        return self._builder.messages(problem)

    def _check_tokens(self, problem: Problem, prompt: Prompt) -> None:
        given = self._as_trl_has_it(problem)
        if isinstance(given, str):
            ids = self._tokenizer(text=[given])["input_ids"][0]
        else:
            found: Any = self._tokenizer.apply_chat_template(
                [given], add_generation_prompt=True, tokenize=True, return_dict=True
            )
            ids = found["input_ids"][0]
        if tuple(ids) != prompt.ids:
            raise EngineError(
                f"TRL would give the policy other tokens for the prompt of {problem.problem_id} "
                f"than rloop stores ({len(ids)} and {len(prompt.ids)}). Use engine.name=native."
            )


def build_explorer(sink: Sink, options: dict[str, Any], command: Explore, **extra: Any) -> Any:  # noqa: ANN401
    """Return a GRPOTrainer for the exploration, with the sink as its reward function."""
    trainer = GRPOTrainer(
        model=str(command.start.path),
        reward_funcs=sink.rewards,
        args=GRPOConfig(**options),
        train_dataset=sink.data,
        **extra,
    )
    sink.join(trainer)
    return trainer
