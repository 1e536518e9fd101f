"""Rows: the result of a query that need not fit into memory."""

from __future__ import annotations

import itertools
import struct
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Final

from resilient_exporters.codec import decode, encode

__all__ = ["Rows", "chunks"]

_LENGTH: Final = struct.Struct("<I")
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})


class Rows:
    """Rows in a temporary file; iterating gives mappings, as often as you like.

    The file has no name and goes with this object, or with the process.

    Args:
        columns: names, in the order of the values.
        rows: their values.
        batch_rows: rows that are held in memory at a time.

    Attributes:
        columns: the names.
    """

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], batch_rows: int = 1000) -> None:
        self.columns = list(columns)
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._count = 0
        try:
            for some in chunks(rows, batch_rows):
                payload = encode([[_kept(value) for value in row] for row in some])
                self._file.write(_LENGTH.pack(len(payload)) + payload)
                self._count += len(some)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.values():
            yield dict(zip(self.columns, row, strict=True))

    def values(self) -> Iterator[list[Any]]:
        """The values of each row, in the order of the columns."""
        at = 0
        while True:
            with self._lock:
                self._file.seek(at)
                head = self._file.read(_LENGTH.size)
                if not head:
                    return
                (length,) = _LENGTH.unpack(head)
                payload = self._file.read(length)
            at += _LENGTH.size + length
            yield from decode(payload)

    def __repr__(self) -> str:
        return f"<{len(self)} rows: {', '.join(self.columns)}>"


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of so many."""
    rest = iter(items)
    while some := list(itertools.islice(rest, size)):
        yield some


def _kept(value: Any) -> Any:
    """A value that the codec keeps; what only the driver knows (an address, a range) becomes its text."""
    from resilient_exporters.exporters.sql_columns import plain  # with it comes SQLAlchemy, which is an extra

    if type(value) in _PLAIN:
        return value
    try:
        return plain(value)
    except TypeError:
        return str(value)
