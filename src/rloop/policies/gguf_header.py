"""The header of a GGUF file: its metadata, and the shape of every tensor.

The `gguf` package's reader creates an object for each of 100,000 vocabulary entries, which takes
seconds. This reader skips lists of texts unless they are wanted.
Source: the GGUF specification (gguf.md in the docs of ggml), versions 2 and 3, little-endian.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STRING, _ARRAY = 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Types of metadata values, as `struct` calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """The header of a GGUF file.

    Example: GgufHeader(values={"general.architecture": "llama", "llama.block_count": 30},
    shapes={"token_embd.weight": [49_152, 576]})
    """

    values: dict[str, Any]
    """Metadata by key: texts, numbers and lists of them; None for a skipped list."""
    shapes: dict[str, list[int]]
    """Shape of each tensor, in PyTorch's order."""


def read_gguf_header(path: Path, *, vocabulary: bool = False) -> GgufHeader:
    """Read the header; lists of texts only with the vocabulary.

    Raises ValueError for a file that is truncated, not GGUF, or of another version.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _header(_Reader(data, vocabulary=vocabulary))
        except (struct.error, LookupError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path} is truncated or damaged within its header") from error


def _header(reader: "_Reader") -> GgufHeader:
    magic, version, num_tensors, num_values = reader.take("4sIQQ")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it begins with {magic!r} and version {version}")
    values = {reader.string(): reader.value(*reader.take("I")) for _ in range(num_values)}
    shapes = {}
    for _ in range(num_tensors):
        name, (num_dimensions,) = reader.string(), reader.take("I")
        *shape, _, _ = reader.take(f"{num_dimensions}QIQ")  # then its type and its place
        shapes[name] = shape[::-1]
    return GgufHeader(values=values, shapes=shapes)


class _Reader:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap, *, vocabulary: bool) -> None:
        self._data = data
        self._vocabulary = vocabulary
        self._at = 0

    def value(self, kind: int) -> Any:  # noqa: ANN401 (a text, a number, or a list)
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inside, count = self.take("IQ")
            if inside in _SCALARS:
                return list(self.take(f"{count}{_SCALARS[inside]}"))
            if inside == _STRING and not self._vocabulary:
                return self._pass_texts(count)
            return [self.value(inside) for _ in range(count)]
        return self.take(_SCALARS[kind])[0]

    def _pass_texts(self, count: int) -> None:
        unpack, data, at = struct.Struct("<Q").unpack_from, self._data, self._at
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self._at = at

    def string(self) -> str:
        (length,) = self.take("Q")
        begin, self._at = self._at, self._at + length
        return self._data[begin : self._at].decode(errors="replace")

    def take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return found
