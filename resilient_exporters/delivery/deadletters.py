"""Dead letters: records that a target refused for good, kept on disk until someone looks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from resilient_exporters import codec
from resilient_exporters.delivery.frame import OPTIONS
from resilient_exporters.delivery.spool import LETTERS, Spool

__all__ = ["DeadLetter", "DeadLetters", "Letter", "read_letters"]

log = logging.getLogger("resilient_exporters")


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that a target refused for good.

    Attributes:
        id: the record's id.
        data: the record.
        target: name of the target that refused it.
        reason: why, in the target's words.
        attempts: how often it was tried.
        time: when it was given up, in seconds since the epoch by the clock of that moment.
        options: the keywords that were sent with it.
    """

    id: str
    data: Any
    target: str
    reason: str
    attempts: int
    time: float
    options: dict[str, Any]


class Letter(msgspec.Struct, array_like=True, frozen=True):
    """A dead letter as it is kept: the record stays encoded."""

    run: bytes
    offset: int
    target: str
    reason: str
    attempts: int
    time: float
    flags: int
    payload: bytes

    @property
    def id(self) -> str:
        """The record's id."""
        return f"{self.run.hex()}-{self.offset}"

    def open(self) -> DeadLetter:
        """The letter with its record decoded."""
        if self.flags & OPTIONS:
            data, options = codec.decode_with_options(self.payload)
        else:
            data, options = codec.decode(self.payload), {}
        return DeadLetter(self.id, data, self.target, self.reason, self.attempts, self.time, options)


class DeadLetters:
    """The letters of one queue. Used by the keeper's thread only.

    Args:
        spool: where they are kept; None where there is no disk: then they are in memory only.
        most: bound. Beyond it the oldest go.
        dropped: told of each letter that went for the bound.
    """

    def __init__(self, spool: Spool | None, most: int, dropped: Callable[[list[Letter]], None]) -> None:
        self._spool = spool
        self._most = most
        self._dropped = dropped
        self._keys: list[int] = []
        self._memory: dict[int, list[Letter]] = {}
        self._count = 0

    def attach(self, keys: list[int]) -> None:
        """Take over what is on disk."""
        self._keys = sorted({*keys, *self._memory}, reverse=True)
        self._count = sum(len(self._row(key)) for key in self._keys)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Letter]:
        for key in list(self._keys):
            yield from self._row(key)

    def add(self, letters: list[Letter]) -> None:
        """Keep letters; when this returns they are on disk.

        Raises:
            SpoolUnavailable, SpoolDamaged
        """
        key = min(self._keys[-1] if self._keys else LETTERS + 1, LETTERS + 1) - 1
        self._put({key: letters})
        self._keys.append(key)
        self._count += len(letters)
        while self._count > self._most and self._keys:
            oldest = self._row(self._keys[0])
            gone = oldest[: max(1, self._count - self._most)]
            self._replace(self._keys[0], oldest[len(gone) :])
            self._count -= len(gone)
            self._dropped(gone)

    def remove(self, ids: set[str] | None) -> list[Letter]:
        """Take letters out: those with these ids, or all. Returns them."""
        return self.take(lambda letter: ids is None or letter.id in ids)

    def take(self, wanted: Callable[[Letter], bool]) -> list[Letter]:
        """Take the letters out for which ``wanted`` says so."""
        removed: list[Letter] = []
        for key in list(self._keys):
            row = self._row(key)
            left = [letter for letter in row if not wanted(letter)]
            if len(left) < len(row):
                self._replace(key, left)
                removed.extend(letter for letter in row if wanted(letter))
        self._count -= len(removed)
        return removed

    def _replace(self, key: int, letters: list[Letter]) -> None:
        if letters:
            self._put({key: letters})
            return
        self._keys.remove(key)
        self._memory.pop(key, None)
        if self._spool is not None:
            self._spool.write({}, [key])

    def _put(self, rows: dict[int, list[Letter]]) -> None:
        if self._spool is None:
            self._memory.update(rows)
        else:
            self._spool.open()
            self._spool.write({key: _encode(letters) for key, letters in rows.items()})

    def _row(self, key: int) -> list[Letter]:
        if key in self._memory or self._spool is None:
            return self._memory.get(key, [])
        return read_letters(self._spool.get(key))


def read_letters(row: bytes | None) -> list[Letter]:
    """The letters of a row; none, said once, where they cannot be read."""
    if row is None:
        return []
    try:
        return _decode(row)
    except msgspec.MsgspecError as error:
        log.error("dead letters cannot be read: %s", error)
        return []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Letter]).decode
