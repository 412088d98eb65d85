"""How a completion ends, and which of its tokens are text.

Instruction models end a turn with a token of their chat template, which need not be the
tokenizer's EOS; and they may write tags such as `</think>` as special tokens, which a verifier has
to see.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rloop.config_prompt import PromptConfig
from rloop.engines.native.prompts import encode, prompt_text
from rloop.errors import EngineError
from rloop.prompt_text import PromptText

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """What a chat template writes behind an assistant's message.

    Example: TurnEnd("<|im_end|>", 151645); TurnEnd("###", None) where it is not one token
    """

    text: str
    token_id: int | None


def find_turn_end(
    tokenizer: PreTrainedTokenizerBase, config: PromptConfig, num_embeddings: int | None = None
) -> TurnEnd | None:
    """Return how the model's chat template ends an assistant's message.

    None where it adds nothing or will not render such a message, and for a recipe's own template
    that does not write that end itself, behind the problem. A token beyond the embeddings of the
    model does not count as one.
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
    """Return a sentence where nothing that can be sampled ends a turn as the template does."""
    end = find_turn_end(tokenizer, config, num_embeddings)
    if end is None or end.token_id is not None:
        return []
    return [
        f"The chat template ends a turn with {end.text!r}, which is not a token that the model "
        f"has, while a completion stops at {tokenizer.eos_token!r} alone, which a cold start "
        "trains: whatever ends its turn runs on to the limit. Give the model such a token, or "
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
    """All other special tokens, and what ends a completion."""

    def of(self, token_ids: Sequence[int]) -> str:
        """Return the text of the tokens, without those that only frame it."""
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
    """Return what decodes the completions of a recipe, which end with one of `end_ids`.

    Hidden are those, the tokens that the tokenizer names (BOS, EOS, padding, unknown, ...), and
    those that frame a user's message in the chat template, unless they are tags with an end of
    their own, such as `<think>` and `</think>`.
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
    """Return the tokenizer's chat template, without the recipe's system text; None where there is
    none that works, which is said where prompts are built.
    """
    bare = config.model_copy(update={"template": None, "system": None})
    try:
        return prompt_text(tokenizer, bare)
    except EngineError:
        return None
