"""Where a completion ends at a stop text of the recipe (`sampling.stop`), found among its
tokens."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

MARGIN = 4
"""Extra tokens before the longest stop text that are decoded too: bytes of a character, a first
space.
"""


class StopTexts:
    """The stop texts of a recipe, for one tokenizer."""

    def __init__(self, decode: Callable[[Sequence[int]], str], texts: Sequence[str]) -> None:
        """`decode` turns token ids into text."""
        self._decode = decode
        self._texts = tuple(texts)
        # a token has a byte at least
        self._reach = MARGIN + max((len(text.encode()) for text in texts), default=0)

    def end(self, ids: Sequence[int], begin: int = 0) -> int | None:
        """Return the number of ids up to and including the one that completes a stop text.

        None if there is none; the first `begin` ids are known to contain none. Example: 3 of the
        characters `4`, newline, `Q`, `:` for the stop text newline and `Q`.
        """
        if not self._texts:
            return None
        start = max(0, begin - self._reach)

        def is_stopped(number: int) -> bool:
            text = self._decode(ids[start:number])
            return any(stop in text for stop in self._texts)

        if not is_stopped(len(ids)):
            return None
        numbers = range(begin + 1, len(ids) + 1)
        return numbers[bisect_left(numbers, 1, key=is_stopped)]


def before_stop(text: str, stops: Sequence[str]) -> str:
    """Return the text up to the first stop text in it. Example: `4` of `4\\nQ: 5?` and `\\nQ`."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)] if found else text
