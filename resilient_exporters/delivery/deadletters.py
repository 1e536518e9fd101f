"""Dead letters: records that a target refused for good, kept on disk until someone looks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import msgspec

from resilient_exporters import codec
from resilient_exporters.delivery.frame import OPTIONS
from resilient_exporters.delivery.sealed import seal, unseal
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
        spool: where they are kept.
        most: bound. Beyond it the oldest go.
        dropped: told of each letter that went for the bound.
        fits: whether so many bytes more keep the bounds on the disk.

    Attributes:
        damaged: some of those that were taken over could not be read.
    """

    def __init__(
        self,
        spool: Spool,
        most: int,
        dropped: Callable[[list[Letter]], None],
        fits: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self._spool = spool
        self._most = most
        self._dropped = dropped
        self._fits = fits
        self.damaged = False
        self._keys: list[int] = []
        self._known: dict[tuple[str, str], int] = {}  # the row of each

    def attach(self, keys: list[int]) -> None:
        """Take over what is on disk."""
        self._keys = sorted(keys, reverse=True)
        self._known = {}
        for key in self._keys:
            letters, damaged = self._look(key)
            self.damaged |= damaged > 0
            self._known.update(((letter.id, letter.target), key) for letter in letters)

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Letter]:
        for key in list(self._keys):
            yield from self._row(key)

    def __contains__(self, letter: Letter) -> bool:
        return (letter.id, letter.target) in self._known

    def names(self) -> Iterator[tuple[str, int, str]]:
        """Run, offset and target of each."""
        for name, target in self._known:
            run, _, offset = name.partition("-")
            yield run, int(offset), target

    def count(self, target: str) -> int:
        """How many letters a target has."""
        return sum(one == target for _, one in self._known)

    def add(self, letters: list[Letter]) -> list[Letter]:
        """Keep letters; when this returns they are on disk. One that is there already (after a crash) is kept once.

        Returns:
            Those that were not there.

        Raises:
            SpoolUnavailable, SpoolDamaged
        """
        named = {(letter.id, letter.target): letter for letter in letters}
        new = [letter for name, letter in named.items() if name not in self._known]
        if not new:
            return new
        key = min(self._keys[-1] if self._keys else LETTERS + 1, LETTERS + 1) - 1
        size = len(_row_of(new))
        if size > self._spool.letter_bytes and len(new) > 1:
            self.add(new[: len(new) // 2])
            self.add(new[len(new) // 2 :])
            return new
        self._spool.open()
        while self._keys and not self._fits(size):
            self._drop_oldest(len(new))
        self._put(key, new)
        self._keys.append(key)
        self._known.update(((letter.id, letter.target), key) for letter in new)
        while len(self._known) > self._most and self._keys:
            self._drop_oldest(len(self._known) - self._most)
        return new

    def _drop_oldest(self, number: int) -> None:
        oldest = self._row(self._keys[0])
        gone = oldest[: max(1, number)]
        self._replace(self._keys[0], oldest[len(gone) :])
        self._forget(gone)
        self._dropped(gone)

    def remove(self, ids: set[str] | None) -> list[Letter]:
        """Take letters out: those with these ids, or all. Returns them."""
        keys = list(self._keys) if ids is None else self._rows_of(one for one in self._known if one[0] in ids)
        return [gone for key in keys for gone in self._take_from(key, lambda one: ids is None or one.id in ids)]

    def remove_one(self, letter: Letter) -> None:
        """Take one letter out."""
        name = (letter.id, letter.target)
        for key in self._rows_of(one for one in (name,) if one in self._known):
            self._take_from(key, lambda one: (one.id, one.target) == name)

    def take(self, wanted: Callable[[Letter], bool]) -> list[Letter]:
        """Take the letters out for which ``wanted`` says so. Reads all of them."""
        return [gone for key in list(self._keys) for gone in self._take_from(key, wanted)]

    def without(self, letters: Collection[Letter]) -> tuple[dict[int, bytes], list[int]]:
        """What takes these letters out, to be written by another: rows as they are then, and rows to delete."""
        names = {(one.id, one.target) for one in letters}
        puts: dict[int, bytes] = {}
        deletes: list[int] = []
        for key in self._rows_of(name for name in names if name in self._known):
            rest = [one for one in self._row(key) if (one.id, one.target) not in names]
            if rest:
                puts[key] = _row_of(rest)
            else:
                deletes.append(key)
        return puts, deletes

    def left(self, letters: Collection[Letter], deleted: list[int]) -> None:
        """That was written."""
        self._forget(letters)
        self._keys = [key for key in self._keys if key not in deleted]

    def forget_other(self, found: set[int]) -> list[str]:
        """All rows but these are gone. Returns the target of each letter that was in them."""
        gone = [name for name, key in self._known.items() if key not in found]
        self._keys = [key for key in self._keys if key in found]
        for name in gone:
            del self._known[name]
        return [target for _, target in gone]

    def _rows_of(self, names: Iterable[tuple[str, str]]) -> list[int]:
        return sorted({self._known[name] for name in names}, reverse=True)

    def _take_from(self, key: int, wanted: Callable[[Letter], bool]) -> list[Letter]:
        row = self._row(key)
        out = [letter for letter in row if wanted(letter)]
        if out:
            self._replace(key, [letter for letter in row if not wanted(letter)])
            self._forget(out)
        return out

    def _forget(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            self._known.pop((letter.id, letter.target), None)

    def _replace(self, key: int, letters: list[Letter]) -> None:
        if letters:
            self._put(key, letters)
        else:
            self._spool.write({}, [key])
            self._keys.remove(key)

    def _put(self, key: int, letters: list[Letter]) -> None:
        self._spool.open()
        self._spool.write({key: _row_of(letters)})

    def _row(self, key: int) -> list[Letter]:
        return self._look(key)[0]

    def _look(self, key: int) -> tuple[list[Letter], int]:
        return _read(self._spool.get(key))


def read_letters(row: bytes | None) -> list[Letter]:
    """The letters of a row that are as they were written; that others are not is said."""
    return _read(row)[0]


def _read(row: bytes | None) -> tuple[list[Letter], int]:
    found: list[Letter] = []
    damaged = 0
    for part in [] if row is None else unseal(row):
        try:
            found.append(_decode(part or b""))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.debug("a dead letter: %s", error)
            damaged += 1
    if damaged:
        log.error("%d dead letters cannot be read: they are damaged", damaged)
    return found, damaged


def _row_of(letters: Iterable[Letter]) -> bytes:
    return seal([_encode(letter) for letter in letters])


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Letter).decode
