"""A completion token by token, by the tokenizer in the run; no torch, no transformers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from rloop.text import visible

SURE = (0.9, 0.5, 0.1, 0.01)
"""Probabilities that part the shades: at least 0.9 is shade 0, less than 0.01 shade 4."""
MAX_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text with how likely it was. Example: Token(" 7", 345, -0.26, 0.77, 1)"""

    text: str
    """Empty for a token that only completes a character with the next ones."""
    token_id: int
    logprob: float
    probability: float
    shade: int


def tokens_of(
    run_dir: Path, ids: Sequence[int], logprobs: Sequence[float], text: str
) -> list[Token]:
    """Return a completion's tokens; none where the run's tokenizer does not give its text back."""
    tokenizer = run_tokenizer(run_dir)
    if tokenizer is None:
        return []
    stream = DecodeStream(skip_special_tokens=False)
    pieces = [stream.step(tokenizer, token_id) or "" for token_id in ids[:MAX_TOKENS]]
    if not _agree("".join(pieces), text):
        return []
    return [
        Token(visible(piece), token_id, logprob, math.exp(logprob), shade(math.exp(logprob)))
        for piece, token_id, logprob in zip(pieces, ids, logprobs, strict=False)
    ]


def run_tokenizer(run_dir: Path) -> Tokenizer | None:
    """Return the tokenizer of any of the run's policies, for all have the same; None without."""
    for path in sorted(run_dir.glob("polic*/**/tokenizer.json")):
        if path.resolve() == path and path.is_file():
            return _load(path, path.stat().st_mtime_ns)
    return None


def shade(probability: float) -> int:
    """Return 0 for a token that was sure to come, up to 4 for a surprise."""
    return sum(probability < limit for limit in SURE)


@lru_cache(maxsize=2)
def _load(path: Path, changed_ns: int) -> Tokenizer | None:
    """Return a tokenizer; None for a file that is none. `changed_ns` makes a new one be read."""
    del changed_ns
    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # noqa: BLE001 (the library raises plain Exception for a damaged file)
        return None


def _agree(decoded: str, text: str) -> bool:
    """Whether the pieces are the stored text, special tokens at their end aside."""
    return decoded.startswith(text) or text.startswith(decoded)
