"""Each record once."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from resilient_exporters.codec import encode
from resilient_exporters.pipeline.filters.base import BaseRecordFilter
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["DupeFilter"]

_BYTES: Final = 16
_EMPTY: Final = bytes(_BYTES)


class DupeFilter(BaseRecordFilter):
    """Lets the first record with each key pass; what it saw is kept with the job, so a resume goes on with it.

    A key is remembered by 16 bytes of its BLAKE2 digest: 24 to 48 bytes of memory for each, and two different keys are
    never taken for one in practice (with a thousand million keys: one chance in 10^20). Records without the key pass;
    the figure ``without_key`` counts them.

    Example:
        >>> seen = DupeFilter(key_field="id")
        >>> [seen.filter({"id": number}) for number in (1, 2, 1)]
        [True, True, False]
    """

    supported_options = {
        "key_field": Option(type=str, default="_key", help="Key whose values are to be different."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._key: str = self.read_option("key_field")
        self._seen = _Digests()
        self._fresh = bytearray()
        self._without = 0

    def filter(self, item: BaseRecord) -> bool:
        """Whether its key is a new one, or missing."""
        key = item.get(self._key)
        if key is None:
            self._without += 1
            if self._without == 1:
                self.logger.warning("a record without %s passes as it is; more are only counted", self._key)
            self.set_metadata("without_key", self._without)
            return True
        digest = _digest(key)
        if not self._seen.add(digest):
            return False
        self._fresh += digest
        return True

    def drain_journal(self) -> list[Any]:
        """The keys since the last call."""
        fresh, self._fresh = self._fresh, bytearray()
        return [bytes(fresh)] if fresh else []

    def replay_journal(self, entries: list[Any]) -> None:
        """Remember what was seen before."""
        for entry in entries:
            for place in range(0, len(entry), _BYTES):
                self._seen.add(entry[place : place + _BYTES])

    def get_state(self) -> Any:
        """Figures only: the keys are in the journal."""
        return {"filtered_out": self.filtered_out, "without_key": self._without}

    def set_state(self, state: Any) -> None:
        """Go on counting."""
        self.filtered_out, self._without = state["filtered_out"], state["without_key"]


def _digest(key: Any) -> bytes:
    if type(key) is str:
        raw = b"s" + key.encode("utf-8", "surrogatepass")
    elif isinstance(key, (int, float)) and key == key and abs(key) != float("inf"):  # noqa: PLR0124 - no nan
        raw = b"n" + str(int(key) if key == int(key) else key).encode()  # 1, 1.0 and True are one key, as in a set
    else:
        raw = b"o" + encode(key, "key")
    return hashlib.blake2b(raw, digest_size=_BYTES).digest()


class _Digests:
    """A set of digests in one piece of memory: open addressing, at most two thirds full."""

    def __init__(self) -> None:
        self._count = 0
        self._mask = (1 << 10) - 1
        self._table = bytearray(_BYTES << 10)

    def add(self, digest: bytes) -> bool:
        """Remember a digest. False: it was there."""
        if not self._put(digest):
            return False
        self._count += 1
        if self._count * 3 > self._mask * 2:
            self._grow()
        return True

    def _put(self, digest: bytes) -> bool:
        table, mask = self._table, self._mask
        place = int.from_bytes(digest[:8], "little") & mask
        while True:
            found = table[place * _BYTES : place * _BYTES + _BYTES]
            if found == _EMPTY:
                table[place * _BYTES : place * _BYTES + _BYTES] = digest
                return True
            if found == digest:
                return False
            place = place + 1 & mask

    def _grow(self) -> None:
        old = self._table
        self._mask = self._mask * 2 + 1
        self._table = bytearray((self._mask + 1) * _BYTES)
        for start in range(0, len(old), _BYTES):
            digest = bytes(old[start : start + _BYTES])
            if digest != _EMPTY:
                self._put(digest)

    def __len__(self) -> int:
        return self._count
