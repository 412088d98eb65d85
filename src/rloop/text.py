"""Text of a model made safe to look at, in a terminal and in a page."""

import re

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]"
)

_TEMPLATE_WORDS = re.compile(r"<\|[^|>]{1,40}\|>(?:(?:system|user|assistant)(?=\s|$))?")
"""`<|im_start|>user` and its like."""


def visible(text: str) -> str:
    """Return text with its control characters shown instead of obeyed.

    Escape and its kin, lone surrogates, and characters that reorder or hide text become their code
    points, `<U+001B>`. Line ends and tabs stay.
    """
    return _UNSEEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", text.replace("\r\n", "\n"))


def excerpt(prompt: str, limit: int = 160) -> str:
    """Return the end of a prompt's last line, without the words of a chat template around it."""
    plain = _TEMPLATE_WORDS.sub("", visible(prompt))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return text if len(text) <= limit else f"... {text[-limit:]}"
