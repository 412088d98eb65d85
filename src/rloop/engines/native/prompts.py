"""Prompts as token ids: a problem's text through the model's tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rloop.config_prompt import PromptConfig
from rloop.errors import EngineError
from rloop.prompt_text import Messages, PromptText, added_prefix, with_prefix
from rloop.types import Problem


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy is conditioned on. Example: Prompt("1+1=", (5, 9, 5, 7))."""

    text: str
    ids: tuple[int, ...]


class PromptBuilder:
    """Builds prompts for one tokenizer and one recipe."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PromptConfig,
        *,
        num_embeddings: int | None = None,
    ) -> None:
        """Check that there is a template that keeps what it is given.

        With the number of the model's embeddings, `build` refuses a token that has none.
        """
        self._tokenizer = tokenizer
        self._num_embeddings = num_embeddings
        self._text = prompt_text(tokenizer, config)
        self._prefix: tuple[int, ...] = ()
        if config.template is not None:
            # The recipe's own template is plain text; a chat template writes its special tokens.
            self._prefix = added_prefix(encode(tokenizer, "a"), tokenizer("a")["input_ids"])
        self.version = self._text.version

    def build(self, problem: Problem) -> Prompt:
        """Return the problem's prompt, with BOS once where the tokenizer adds it, without EOS."""
        text = self._text.text(problem)
        try:
            ids = with_prefix(encode(self._tokenizer, text), self._prefix)
        except EngineError as error:
            raise EngineError(f"The prompt of {problem.problem_id}: {error}") from error
        check_embedded(ids, self._num_embeddings, f"The prompt of {problem.problem_id}")
        return Prompt(text, ids)

    def shown(self, problem: Problem) -> str:
        """Return the prompt's text with what the tokenizer puts before it."""
        prompt = self.build(problem)
        added = prompt.ids[: len(self._prefix)]
        bare = encode(self._tokenizer, prompt.text)[: len(added)]
        before = "" if bare == added else str(self._tokenizer.decode(list(added)))
        return before + prompt.text

    def messages(self, problem: Problem) -> Messages:
        """Return the conversation that the model's chat template renders."""
        return self._text.messages(problem)

    def warnings(self) -> list[str]:
        """Return sentences about arguments of the template that change nothing."""
        return self._text.warnings()


def prompt_text(tokenizer: PreTrainedTokenizerBase, config: PromptConfig) -> PromptText:
    """Return what writes prompts with the tokenizer's chat template, or the recipe's own."""
    return PromptText(
        config,
        chat_template=getattr(tokenizer, "chat_template", None),
        special_tokens=tokenizer.special_tokens_map,
    )


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return a text's tokens, no special ones added; EngineError for what cannot be text."""
    try:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    except (TypeError, UnicodeError) as error:
        raise EngineError(
            f"the tokenizer refuses the text {text!a:.60} (half a character, U+D800 to U+DFFF, "
            "cannot be encoded). Mend the text."
        ) from error


def check_embedded(ids: Sequence[int], num_embeddings: int | None, what: str) -> None:
    """Raise EngineError for a token that the model has no embedding for."""
    largest = max(ids, default=0)
    if num_embeddings is not None and largest >= num_embeddings:
        raise EngineError(
            f"{what} has the token {largest}, and the model has {num_embeddings} embeddings. Its "
            "tokenizer is another model's, or the text holds a token that the model cannot read: "
            "copy the right tokenizer, or change the text."
        )
