"""Values as text for people: what a model wrote made safe to look at, and numbers in few digits."""

import re

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]"
)

_TEMPLATE_WORDS = re.compile(r"<\|[^|>]{1,40}\|>(?:(?:system|user|assistant)(?=\s|$))?")
"""`<|im_start|>user` and its like."""


LARGEST_COUNT = 10**15
"""What is beyond is a seed or a hash, whose digits are not grouped."""
SHOWN_ENTRIES = 3
"""Entries of a list that a table shows, such as token ids; JSON has them all."""


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


def format_value(value: object, unit: str = "") -> str:
    """Return a value in few digits: 12,800; 0.417; 1.2 GB; empty for None; long lists cut."""
    if value is None:
        return ""
    if unit == "bytes" and isinstance(value, int | float):
        return _format_bytes(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) < LARGEST_COUNT else str(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 or value.is_integer() else f"{value:.3g}"
    if isinstance(value, list | tuple) and len(value) > SHOWN_ENTRIES:
        shown = ", ".join(map(str, value[:SHOWN_ENTRIES]))
        return visible(f"[{shown}, ... {len(value):,} in all]")
    return visible(str(value))


def _format_bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB" if value < 1000 else f"{value:,.0f} TB"
