"""Just enough of Thrift's compact protocol to find where a parquet page's header ends.

Source: the Thrift compact protocol specification, and `PageHeader` in parquet.thrift.
"""

from typing import BinaryIO

_COMPRESSED_SIZE = 3
"""Field of `PageHeader`: bytes of the page that follows."""
_READ_BYTES = 4096
"""Headers have some 30 bytes; those with long statistics have more, and are read again."""
_BOOLEANS, _INTEGERS, _BINARY, _LISTS, _STRUCT = (1, 2), (4, 5, 6), 8, (9, 10), 12
_WIDTHS = {3: 1, 7: 8}
"""Bytes of a byte and of a double."""


def read_page_header(file: BinaryIO, at: int) -> tuple[int, int]:
    """Return the length of the header that begins at a position, and of its page (bytes)."""
    size = _READ_BYTES
    while True:
        file.seek(at)
        data = file.read(size)
        try:
            reader = _Reader(data)
            fields = reader.struct()
        except IndexError:
            if len(data) < size:
                raise
            size *= 16
            continue
        return reader.at, fields[_COMPRESSED_SIZE]


class _Reader:
    """Reads values one after the other; IndexError at the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self) -> dict[int, int]:
        """Return the integers of a struct by field number; other fields are passed over."""
        found, field = {}, 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else self._integer()
            if kind in _INTEGERS:
                found[field] = self._integer()
            else:
                self._skip(kind)
        return found

    def _skip(self, kind: int) -> None:
        if kind in _BOOLEANS:
            return
        if kind in _INTEGERS:
            self._varint()
        elif kind == _STRUCT:
            self.struct()
        elif kind in _LISTS:
            head = self._byte()
            for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                self._skip(head & 15)
        else:
            length = self._varint() if kind == _BINARY else _WIDTHS[kind]
            self.at += length

    def _byte(self) -> int:
        found = self._data[self.at]
        self.at += 1
        return found

    def _varint(self) -> int:
        found = shift = 0
        while (byte := self._byte()) & 128:
            found |= (byte & 127) << shift
            shift += 7
        return found | byte << shift

    def _integer(self) -> int:
        number = self._varint()
        return number >> 1 ^ -(number & 1)
