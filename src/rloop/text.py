"""Text of a model made safe to look at, in a terminal and in a page."""

import re

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]"
)


def visible(text: str) -> str:
    """Return text with its control characters shown instead of obeyed.

    Escape and its kin, lone surrogates, and characters that reorder or hide text become their code
    points, `<U+001B>`. Line ends and tabs stay.
    """
    return _UNSEEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", text.replace("\r\n", "\n"))
