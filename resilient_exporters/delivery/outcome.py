"""What a target is given (records in a batch) and what it answers (outcomes)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union, overload

import msgspec

__all__ = ["Batch", "Delivered", "Full", "Hold", "Outcome", "Record", "Reject", "Retry", "Split"]


class Delivered(msgspec.Struct, frozen=True):
    """The target has the record. ``returned`` is what it gave back for it (an id, a response), or None."""

    returned: Any = None


class Retry(msgspec.Struct, frozen=True):
    """Not now: the record stays in the queue. ``after`` is the wait in seconds that the target asked for."""

    after: float | None = None
    reason: str = ""


class Reject(msgspec.Struct, frozen=True):
    """Never: the record becomes a dead letter with this reason."""

    reason: str


class Hold(msgspec.Struct, frozen=True):
    """Someone has to mend something first (credentials, a missing database). Probed slowly, nothing is lost."""

    reason: str


class Split(msgspec.Struct, frozen=True):
    """The batch is too large: it is halved. A record that is too large alone is rejected."""

    reason: str = "too large"


class Full(msgspec.Struct, frozen=True):
    """No room, now or later: the record is not delivered, does not wait, and is counted as dropped (``full``)."""

    reason: str


Outcome = Union[Delivered, Retry, Reject, Hold, Split, Full]


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as a target sees it.

    Attributes:
        run: identity of the queue when it accepted the record (16 hex digits).
        offset: place of the record in that run; grows by one with every record accepted.
        data: the value that was sent.
        options: the keywords given to ``send`` with it.
    """

    run: str
    offset: int
    data: Any
    options: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Identity fixed at acceptance, the same at every attempt, restart and target: ``run-offset``."""
        return f"{self.run}-{self.offset}"


class Batch(Sequence[Record]):
    """Consecutive records for one target.

    Attributes:
        redelivered: True if the target may have been given some of these records before: an earlier attempt
            failed or got no answer, or the program was restarted meanwhile. A target without idempotent ids
            looks for what it already holds only then.
        deadline: ``time.monotonic()`` at which the attempt is given up (``timeout`` after its start).
        size: bytes of the records in the queue, at most. Infinite where nobody has counted.
    """

    __slots__ = ("_records", "deadline", "redelivered", "size")

    def __init__(
        self,
        records: Sequence[Record],
        *,
        redelivered: bool = False,
        deadline: float = float("inf"),
        size: float = float("inf"),
    ) -> None:
        self._records = records
        self.redelivered = redelivered
        self.deadline = deadline
        self.size = size

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return self._records[index]

    def __repr__(self) -> str:
        span = f"{self._records[0].id} …" if self._records else "empty"
        return f"Batch({len(self._records)} records, {span})"
