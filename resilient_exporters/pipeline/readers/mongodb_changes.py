"""What changes in MongoDB as a source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from resilient_exporters.pipeline.asking import StopAsked
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.readers.mongodb import BaseMongoReader

if TYPE_CHECKING:
    from pymongo.change_stream import ChangeStream

__all__ = ["MongoChangeStreamReader"]

_LOOK: Final = 100  # milliseconds that the server waits for a change before it says that there is none


class MongoChangeStreamReader(BaseMongoReader):
    """Reads the change stream of a collection or of a database: a record is a change event as MongoDB gives it.

    The position is the resume token, so that a resume goes on exactly there, as long as the server's oplog goes back
    that far; else it ends with the server's error. A new job begins now. The server must be a replica set or a sharded
    cluster: others end the run with their error.
    """

    supported_options = {
        "collection": Option(type=str, default=None, help="Collection; default: all of the database."),
        "pipeline": Option(type=ListOf(dict), default=[], help="Stages of aggregation that events pass."),
        "full_document": Option(
            type=str, default="default", choices=("default", "updateLookup", "whenAvailable", "required"),
            help="Whether updates come with the whole document.",
        ),
        "idle_timeout": Option(
            type=float, default=None, help="Seconds without a change after which the run ends; default: never."
        ),
        "count": Option(type=int, default=0, help="Changes after which the run ends; 0: no limit."),
        "batch_seconds": Option(type=float, default=1.0, help="Longest time in which a batch gathers changes."),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._collection: str | None = self.read_option("collection") or self._factory.collection
        self._count: int = self.read_option("count")
        self._idle: float | None = self.read_option("idle_timeout")
        self._gather: float = self.read_option("batch_seconds")
        self._stream: ChangeStream[Any] | None = None
        self._token: Any = None
        self._given = 0

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The changes that come, up to ``batch_size`` or ``batch_seconds`` after the first one."""
        if self._token is None and self._stream is None:
            self._next()  # and where the stream begins is committed before anything else
            return
        number, quiet = 0, time.monotonic()
        until = None
        while number < self.batch_size and not self.finished and not self.stopping():
            event = self._next()
            now = time.monotonic()
            if event is not None:
                quiet, number, until = now, number + 1, until or now + self._gather
                self._given += 1
                yield event
            self.finished = bool(self._count and self._given >= self._count) or (
                self._idle is not None and now - quiet >= self._idle
            )
            if until is not None and now >= until:
                return

    def _next(self) -> dict[str, Any] | None:
        """The next change, or None if there is none at the moment. Moves the position."""
        try:
            event = self._ask(self._try_next, self._collection)
        except StopAsked:
            return None
        if self._stream is not None and self._stream.resume_token is not None:
            self._token = self._stream.resume_token
        return event

    def _try_next(self) -> dict[str, Any] | None:
        first = self._stream is None and self._token is None
        if self._stream is None or not self._stream.alive:
            self._stream = self._opened()
        if first:
            return None
        try:
            return self._stream.try_next()
        except Exception:
            stream, self._stream = self._stream, None
            stream.close()
            raise

    def _opened(self) -> ChangeStream[Any]:
        place = self._database if self._collection is None else self._database[self._collection]
        full = self.read_option("full_document")
        return place.watch(
            self.read_option("pipeline"),
            full_document=None if full == "default" else full,
            start_after=self._token,
            max_await_time_ms=_LOOK,
            batch_size=self.batch_size,
        )

    def get_last_position(self) -> Any:
        """The resume token, and how many were given."""
        return None if self._token is None else {"token": dict(self._token), "given": self._given}

    def set_last_position(self, position: Any) -> None:
        """Go on behind that token."""
        if position:
            self._token, self._given = position["token"], position["given"]

    def close(self) -> None:
        """Close the stream and the connections."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        super().close()
