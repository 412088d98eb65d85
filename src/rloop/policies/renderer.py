"""Problems to prompts as token ids, and completions to text, through a model's tokenizer.

Instruction models end a turn with a token of their chat template, which need not be the tokenizer's
EOS. They may also write tags such as `</think>` as special tokens, which a verifier must see.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from rloop.errors import EngineError
from rloop.policies.prompts import Messages, PromptText, added_prefix, with_prefix
from rloop.recipe.config import PromptConfig
from rloop.types import Example, Problem, Prompt, PromptReport

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Renderer:
    """Renders one recipe's prompts for one tokenizer, and decodes the completions."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PromptConfig,
        *,
        stop_ids: tuple[int, ...],
        pad_id: int | None = None,
        num_embeddings: int | None = None,
        context: int | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        """`stop_ids` are the tokens that end a completion, ascending.

        With the number of the model's embeddings, tokens without one are refused. `context` is the
        most tokens of prompt and completion together; `warnings` are sentences about the model that
        `report` passes on.
        """
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        self.context = context
        self._config = config
        self._num_embeddings = num_embeddings
        self._of_model = tuple(warnings)
        hidden = stop_ids if pad_id is None else (*stop_ids, pad_id)
        self._completions = completion_text(tokenizer, config, hidden)

    @cached_property
    def _text(self) -> PromptText:
        return prompt_text(self.tokenizer, self._config)

    @cached_property
    def _prefix(self) -> tuple[int, ...]:
        if self._config.template is None:
            return ()
        # The recipe's own template is plain text; a chat template writes its special tokens.
        return added_prefix(encode(self.tokenizer, "a"), self.tokenizer("a")["input_ids"])

    @property
    def version(self) -> str:
        """Hash of everything that decides the texts of prompts."""
        return self._text.version

    @property
    def end_id(self) -> int:
        """The token that completions are taught to end with: the chat template's end of a turn, or
        EOS."""
        end = find_turn_end(self.tokenizer, self._config, self._num_embeddings)
        if end is not None and end.token_id is not None:
            return end.token_id
        own: int | None = self.tokenizer.eos_token_id
        return self.stop_ids[0] if own is None else own

    def prompt(self, problem: Problem) -> Prompt:
        """Return the problem's prompt, with BOS once if the tokenizer adds it, without EOS."""
        text, what = self._text.text(problem), f"The prompt of {problem.problem_id}"
        try:
            ids = with_prefix(encode(self.tokenizer, text), self._prefix)
        except EngineError as error:
            raise EngineError(f"{what}: {error}") from error
        self._check_embedded(ids, what)
        return Prompt(text, ids)

    def messages(self, problem: Problem) -> Messages:
        """Return the conversation that the model's chat template renders."""
        return self._text.messages(problem)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of a completion, without the special tokens that only frame it."""
        return self._completions.of(token_ids)

    def report(self, problems: Sequence[Problem]) -> PromptReport:
        """Split problems by whether their prompt fits `prompt.max_tokens`; show the first one."""
        return PromptReport.of(
            problems,
            [len(self.prompt(problem).ids) for problem in problems],
            self._config.max_tokens,
            context=self.context,
            first=self._shown(problems[0]) if problems else "",
            warnings=self._warnings(),
        )

    def examples(self, problems: Sequence[Problem], solution_template: str) -> list[Example]:
        """Return each problem's prompt and solution as token ids for a cold start; they end like a
        turn of the chat template, else in EOS.
        """
        return [self._example(problem, solution_template) for problem in problems]

    def _example(self, problem: Problem, solution_template: str) -> Example:
        what = f"The solution of {problem.problem_id}"
        # Not str.format: solutions are full of braces.
        text = solution_template.replace("{solution}", problem.solution or "")
        text = text.replace("{answer}", problem.answer)
        try:
            ids = encode(self.tokenizer, text)
        except EngineError as error:
            raise EngineError(f"{what}: {error}") from error
        prompt_ids, completion_ids = self.prompt(problem).ids, (*ids, self.end_id)
        self._check_embedded(completion_ids, what)
        num_tokens = len(prompt_ids) + len(completion_ids)
        if self.context is not None and num_tokens > self.context:
            raise EngineError(
                f"The prompt and the solution of {problem.problem_id} have {num_tokens} tokens, "
                f"more than the {self.context} of the policy's context. Leave that problem out of "
                "the cold start's file, or take a model with a longer context."
            )
        return Example(
            problem_id=problem.problem_id, prompt_ids=prompt_ids, completion_ids=completion_ids
        )

    def _shown(self, problem: Problem) -> str:
        """Return the prompt's text with the tokenizer's prefix."""
        prompt = self.prompt(problem)
        added = prompt.ids[: len(self._prefix)]
        bare = encode(self.tokenizer, prompt.text)[: len(added)]
        before = "" if bare == added else str(self.tokenizer.decode(list(added)))
        return before + prompt.text

    def _warnings(self) -> list[str]:
        """Return warnings about the chat template and the tokenizer."""
        found = [
            *self._text.warnings(),
            *turn_end_warnings(self.tokenizer, self._config, self._num_embeddings),
        ]
        num_tokens = len(self.tokenizer)
        if self._num_embeddings is not None and num_tokens > self._num_embeddings:
            found.append(
                f"The tokenizer has {num_tokens} tokens and the model {self._num_embeddings} "
                "embeddings: a prompt with a token that has none is refused."
            )
        return [*found, *self._of_model]

    def _check_embedded(self, ids: Sequence[int], what: str) -> None:
        """Raise EngineError for a token that the model has no embedding for."""
        largest = max(ids, default=0)
        if self._num_embeddings is not None and largest >= self._num_embeddings:
            raise EngineError(
                f"{what} has the token {largest}, and the model has {self._num_embeddings} "
                "embeddings. Its tokenizer is another model's, or the text holds a token that the "
                "model cannot read: copy the right tokenizer, or change the text."
            )


def prompt_text(tokenizer: PreTrainedTokenizerBase, config: PromptConfig) -> PromptText:
    """Return the writer of prompts, with the tokenizer's chat template or the recipe's own."""
    return PromptText(
        config,
        chat_template=getattr(tokenizer, "chat_template", None),
        special_tokens=tokenizer.special_tokens_map,
    )


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return a text's tokens without special tokens; EngineError for invalid text."""
    try:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    except (TypeError, UnicodeError) as error:
        raise EngineError(
            f"the tokenizer refuses the text {text!a:.60} (an unpaired surrogate, U+D800 to "
            f"U+DFFF, cannot be encoded). Fix the text."
        ) from error


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """What a chat template writes after an assistant message.

    Example: TurnEnd("<|im_end|>", 151645); TurnEnd("###", None) where it is not one token
    """

    text: str
    token_id: int | None


def find_turn_end(
    tokenizer: PreTrainedTokenizerBase, config: PromptConfig, num_embeddings: int | None = None
) -> TurnEnd | None:
    """Return how the model's chat template ends an assistant message.

    None if it adds nothing or cannot render such a message, and for a recipe's own template that
    does not itself write that end after the problem. A token beyond the model's embeddings does not
    count.
    """
    chat = _chat(tokenizer, config)
    tail = (chat.after_reply() or "").strip() if chat else ""
    if not tail:
        return None
    ids = encode(tokenizer, tail)
    is_known = bool(ids) and ids[0] in tokenizer.added_tokens_decoder
    is_usable = is_known and (num_embeddings is None or ids[0] < num_embeddings)
    text = str(tokenizer.added_tokens_decoder[ids[0]]) if is_known else tail.split("\n")[0]
    if config.template is not None and text not in config.template:
        return None
    return TurnEnd(text, ids[0] if is_usable else None)


def turn_end_warnings(
    tokenizer: PreTrainedTokenizerBase, config: PromptConfig, num_embeddings: int | None = None
) -> list[str]:
    """Return a warning if no token that can be sampled ends a turn as the template does."""
    end = find_turn_end(tokenizer, config, num_embeddings)
    if end is None or end.token_id is not None:
        return []
    return [
        f"The chat template ends a turn with {end.text!r}, which is not one of the model's "
        f"tokens. Completions stop only at {tokenizer.eos_token!r}, which a cold start trains; a "
        f"completion that ends its turn as the template does runs on to the limit. Give the model "
        f"such a token, or "
        "write the prompt in prompt.template."
    ]


@dataclass(frozen=True, slots=True)
class CompletionText:
    """Turns a completion's tokens into text.

    Example: CompletionText(tokenizer, shown=frozenset({7, 8}), hidden=frozenset({0, 1, 2}))
    """

    tokenizer: PreTrainedTokenizerBase
    shown: frozenset[int] = frozenset()
    """Special tokens that are text, such as `<think>`."""
    hidden: frozenset[int] = frozenset()
    """All other special tokens, and those that end a completion."""

    def of(self, token_ids: Sequence[int]) -> str:
        """Return the text of the tokens, without tokens that only frame it."""
        if self.shown.isdisjoint(token_ids):
            kept = [i for i in token_ids if i not in self.hidden] if self.hidden else token_ids
            text = self.tokenizer.decode(list(kept), skip_special_tokens=True)
        else:
            kept = [token_id for token_id in token_ids if token_id not in self.hidden]
            text = self.tokenizer.decode(kept, skip_special_tokens=False)
        assert isinstance(text, str), "one list of ids decodes to one text"
        return text


def completion_text(
    tokenizer: PreTrainedTokenizerBase, config: PromptConfig, end_ids: Iterable[int]
) -> CompletionText:
    """Return the decoder of a recipe's completions, which end with one of `end_ids`.

    It hides those, the tokenizer's named tokens (BOS, EOS, padding, unknown, ...), and tokens that
    frame a user message in the chat template, unless they are paired tags such as `<think>` and
    `</think>`.
    """
    special = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    found = (getattr(tokenizer, name, None) for name in NAMED)
    named = {str(token) for token in found if token is not None}
    chat = _chat(tokenizer, config)
    frame = set(encode(tokenizer, chat.user_turn())) if chat else set()
    texts = set(special.values())
    framing = {i for i, text in special.items() if i in frame and not _is_tag(text, texts)}
    hidden = {i for i, text in special.items() if text in named} | framing | {*end_ids}
    return CompletionText(tokenizer, frozenset(special.keys() - hidden), frozenset(hidden))


def _is_tag(text: str, texts: Container[str]) -> bool:
    """Whether it opens or closes something: one of `<x>` and `</x>`, or `[x]` and `[/x]`."""
    is_closing = text[1:2] == "/"
    partner = text[0] + text[2:] if is_closing else f"{text[0]}/{text[1:]}"
    return text[:1] in ("<", "[") and partner in texts


def _chat(tokenizer: PreTrainedTokenizerBase, config: PromptConfig) -> PromptText | None:
    """Return the tokenizer's chat template, without the recipe's system text; None if there is none
    that works, which is reported when prompts are built.
    """
    bare = config.model_copy(update={"template": None, "system": None})
    try:
        return prompt_text(tokenizer, bare)
    except EngineError:
        return None
