"""Prompts: a problem's text through the chat template or the recipe's own, as text and token
ids.
"""

import hashlib
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rloop.config import PromptConfig
from rloop.errors import EngineError
from rloop.types import Problem


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy is conditioned on. Example: Prompt("1+1=", (5, 9, 5, 7))."""

    text: str
    ids: tuple[int, ...]


class PromptBuilder:
    """Builds prompts for one tokenizer and one recipe."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PromptConfig) -> None:
        """Check that there is a template to use."""
        if config.template is None and not tokenizer.chat_template:
            raise EngineError(
                "The model has no chat template. Give the recipe its own, such as "
                "prompt.template: 'Question: {problem}\\nAnswer:'."
            )
        if config.template is not None and "{problem}" not in config.template:
            raise EngineError(f"prompt.template must contain {{problem}}, got {config.template!r}.")
        self._tokenizer = tokenizer
        self._config = config
        source = config.template or str(tokenizer.chat_template)
        parts = "\x1f".join([source, config.system or "", config.suffix])
        self.version = hashlib.blake2b(parts.encode(), digest_size=6).hexdigest()

    def build(self, problem: Problem) -> Prompt:
        """Return the problem's prompt."""
        content = problem.question + self._config.suffix
        if self._config.template is not None:
            # Not str.format: problems are full of braces.
            text = self._config.template.replace("{system}", self._config.system or "")
            text = text.replace("{problem}", content)
            return Prompt(text, tuple(self._tokenizer(text)["input_ids"]))
        rendered = self._tokenizer.apply_chat_template(
            self.messages(problem), tokenize=False, add_generation_prompt=True
        )
        text = str(rendered)
        # The template writes its own special tokens.
        return Prompt(text, tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"]))

    def messages(self, problem: Problem) -> list[dict[str, str]]:
        """Return the conversation that the model's chat template renders."""
        content = problem.question + self._config.suffix
        messages = [{"role": "user", "content": content}]
        if self._config.system is not None:
            messages.insert(0, {"role": "system", "content": self._config.system})
        return messages
