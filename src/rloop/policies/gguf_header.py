"""What stands before the weights of a GGUF file: its metadata, and the shape of every tensor.

The `gguf` package's reader makes an object of each of 100,000 vocabulary entries, which takes
seconds; here they are passed over.
Source: the GGUF specification (docs/gguf.md of ggml), versions 2 and 3, little-endian.
"""

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Types of metadata values, as `struct` calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Example: GgufHeader(values={"general.architecture": "llama", "llama.block_count": 30},
    shapes={"token_embd.weight": [576, 49_152]})
    """

    values: dict[str, str | int | float]
    """Metadata by key; arrays, such as the vocabulary, are left out."""
    shapes: dict[str, list[int]]
    """Of each tensor, the innermost dimension first: the reverse of PyTorch's order."""


def read_gguf_header(path: Path) -> GgufHeader:
    """Read it; ValueError for a file that is cut, not GGUF, or of another version."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        try:
            return reader.header()
        except (struct.error, IndexError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path} is cut or damaged within its header") from error


def read_gguf_strings(path: Path, key: str, indices: Sequence[int]) -> list[str]:
    """Return some entries of an array of strings, such as the vocabulary; KeyError without it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        reader.header()
        return reader.strings(key, indices)


class _Reader:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._arrays: dict[str, int] = {}

    def header(self) -> GgufHeader:
        magic, version, num_tensors, num_values = self._take("4sIQQ")
        if magic != _MAGIC or version not in _VERSIONS:
            raise ValueError(f"it begins with {magic!r} and version {version}")
        values: dict[str, str | int | float] = {}
        for _ in range(num_values):
            key = self._string()
            self._arrays[key] = self._at
            value = self._value(*self._take("I"))
            if value is not None:
                values[key] = value
        shapes = {}
        for _ in range(num_tensors):
            name = self._string()
            (num_dimensions,) = self._take("I")
            *shape, _, _ = self._take(f"{num_dimensions}QIQ")  # then its type and its place
            shapes[name] = shape
        return GgufHeader(values=values, shapes=shapes)

    def strings(self, key: str, indices: Sequence[int]) -> list[str]:
        """Return entries of an array that `header` has passed over."""
        self._at = self._arrays[key]
        kind, kind_inside, count = self._take("IIQ")
        if kind != _ARRAY or kind_inside != _STRING or not all(0 <= i < count for i in indices):
            raise ValueError(f"{key} is not an array of strings with entries {indices}")
        found = {}
        for index in range(max(indices, default=-1) + 1):
            if index in indices:
                found[index] = self._string()
            else:
                (length,) = self._take("Q")
                self._at += length
        return [found[index] for index in indices]

    def _value(self, kind: int) -> str | int | float | None:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            self._pass_array()
            return None
        if kind not in _SCALARS:
            raise ValueError(f"it has a value of unknown type {kind}")
        value: int | float = self._take(_SCALARS[kind])[0]
        return value

    def _pass_array(self) -> None:
        kind, count = self._take("IQ")
        if kind in _SCALARS:
            self._at += count * struct.calcsize(_SCALARS[kind])
        elif kind == _STRING:
            unpack, data, at = struct.Struct("<Q").unpack_from, self._data, self._at
            for _ in range(count):
                at += 8 + unpack(data, at)[0]
            self._at = at
        else:
            for _ in range(count):
                self._value(kind)

    def _string(self) -> str:
        (length,) = self._take("Q")
        begin, self._at = self._at, self._at + length
        return self._data[begin : self._at].decode()

    def _take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return found
