"""Receipts: what ``send`` returns, and what became of the record."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from resilient_exporters.delivery.clock import Bell
from resilient_exporters.errors import TimeoutError as ResilientTimeoutError
from resilient_exporters.units import parse_seconds

if TYPE_CHECKING:
    import asyncio

    from resilient_exporters.delivery.engine import Engine

__all__ = ["ExportResult", "Receipt"]


class ExportResult(NamedTuple):
    """What became of a record at one target.

    Attributes:
        returned: what the target gave back (an id, a response), or None.
        successful: whether the target has it.
    """

    returned: Any
    successful: bool


class Receipt(msgspec.Struct, gc=False, eq=False):
    """A future for one record, or for the records of one list.

    It reads like the ``(returned, successful)`` of the original system: unpacked, or asked for ``returned`` or
    ``successful``, it waits for the first attempt, at most the exporter's ``timeout``. A record that still waits then
    is not successful *yet*. ``result`` and ``await`` wait until the record is settled for good.

    For a pool it iterates over its members' results.
    """

    _engine: Any
    _offset: int
    _others: tuple[int, ...] = ()

    @property
    def _offsets(self) -> tuple[int, ...]:
        return (self._offset, *self._others)

    @property
    def id(self) -> str | None:
        """Id of the (first) record, as the targets see it; None if it was dropped as the newest of a full queue."""
        return None if self._offset < 0 else self._engine.id_of(self._offset)

    def done(self) -> bool:
        """Whether every target has settled it: delivered, refused or dropped."""
        return bool(self._engine.settled(self._offsets))

    def result(self, timeout: float | None = None) -> ExportResult:
        """Wait until every target has settled it.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Returns:
            For one record, what the target returned; for a list of records a list of that. ``successful`` if all of
            them were delivered, to all targets.

        Raises:
            TimeoutError: it is not settled yet, or the exporter was closed before it was.
        """
        if not self._wait(self.done, parse_seconds(timeout, "timeout", none_ok=True)):
            raise self._unsettled(timeout)
        return self._result()

    def _unsettled(self, timeout: float | None) -> ResilientTimeoutError:
        when = "when the exporter was closed" if self._engine.closed else f"after {timeout} s"
        return ResilientTimeoutError(None, f"record {self.id} was not settled {when}; it still waits")

    @property
    def returned(self) -> Any:
        """What the target gave back, after the first attempt."""
        return self._first().returned

    @property
    def successful(self) -> bool:
        """Whether it was delivered, after the first attempt."""
        return self._first().successful

    @property
    def reason(self) -> str:
        """Why it was dropped or refused; "" if it was not."""
        engine: Engine = self._engine
        reasons = (engine.verdict(target, self._offsets).reason for target in engine.targets)
        return next((reason for reason in reasons if reason), "")

    @property
    def targets(self) -> Mapping[str, ExportResult]:
        """The result of each target by name, as far as it is known now."""
        engine: Engine = self._engine
        verdicts = ((target.name, engine.verdict(target, self._offsets)) for target in engine.targets)
        return {name: ExportResult(verdict.returned, verdict.successful) for name, verdict in verdicts}

    def __iter__(self) -> Iterator[Any]:
        result = self._first()
        if self._engine.many:
            yield from self.targets.values()
        else:
            yield from result

    def __len__(self) -> int:
        return len(self._engine.targets) if self._engine.many else 2

    def __getitem__(self, index: int) -> Any:
        return list(self)[index]

    def __bool__(self) -> bool:
        return True

    def __await__(self) -> Generator[Any, None, ExportResult]:
        if not self.done():
            import asyncio

            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()

            def tell() -> None:
                if self.done() or self._engine.closed:
                    self._engine.unwatch(tell)
                    loop.call_soon_threadsafe(_finish, future)

            self._engine.watch(tell)
            self._engine.hurry()
            tell()
            try:
                yield from future
            finally:
                self._engine.unwatch(tell)
            if not self.done():
                raise self._unsettled(None)
        return self._result()

    def _first(self) -> ExportResult:
        engine: Engine = self._engine
        self._wait(lambda: engine.tried(self._offsets), engine.patience)
        return self._result()

    def _result(self) -> ExportResult:
        results = list(self.targets.values())
        returned = results[0].returned if len(results) == 1 else [one.returned for one in results]
        return ExportResult(returned, all(one.successful for one in results))

    def _wait(self, until: Callable[[], bool], timeout: float | None) -> bool:
        if until():
            return True
        bell = Bell()
        engine: Engine = self._engine
        engine.watch(bell.ring)
        engine.hurry()
        try:
            return engine.wait_until(until, bell, timeout)
        finally:
            engine.unwatch(bell.ring)

    def __repr__(self) -> str:
        return f"Receipt({self.id}{f', {len(self._offsets)} records' if self._others else ''})"


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
