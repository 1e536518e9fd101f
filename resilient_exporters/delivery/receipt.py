"""Receipts: what ``send`` returns, and what became of the record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from resilient_exporters.delivery.clock import Bell
from resilient_exporters.errors import TimeoutError as ResilientTimeoutError

if TYPE_CHECKING:
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
    _count: int = 1

    @property
    def id(self) -> str | None:
        """Id of the (first) record, as the targets see it; None if it was dropped as the newest of a full queue."""
        return None if self._offset < 0 else self._engine.id_of(self._offset)

    @property
    def _stop(self) -> int:
        return self._offset + self._count

    def done(self) -> bool:
        """Whether every target has settled it: delivered, refused or dropped."""
        engine: Engine = self._engine
        return self._offset < 0 or engine.settled(self._offset, self._stop)

    def result(self, timeout: float | None = None) -> ExportResult:
        """Wait until every target has settled it.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Returns:
            For one record, what the target returned; for a list of records a list of that. ``successful`` if all of
            them were delivered, to all targets.

        Raises:
            TimeoutError: it is not settled yet.
        """
        if not self._wait(self.done, timeout):
            raise ResilientTimeoutError(None, f"record {self.id} is not settled after {timeout} s; it still waits")
        return self._result()

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
        if self._offset < 0:
            return "overflow"
        engine: Engine = self._engine
        reasons = (engine.verdict(target, self._offset, self._stop).reason for target in engine.targets)
        return next((reason for reason in reasons if reason), "")

    @property
    def targets(self) -> Mapping[str, ExportResult]:
        """The result of each target by name, as far as it is known now."""
        engine: Engine = self._engine
        if self._offset < 0:
            return {target.name: ExportResult(None, False) for target in engine.targets}
        return {
            target.name: ExportResult(*engine.verdict(target, self._offset, self._stop)[:2]) for target in engine.targets
        }

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
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()

            def tell() -> None:
                if self.done():
                    self._engine.unwatch(tell)
                    loop.call_soon_threadsafe(_finish, future)

            self._engine.watch(tell)
            self._engine.hurry()
            tell()
            try:
                yield from future
            finally:
                self._engine.unwatch(tell)
        return self._result()

    def _first(self) -> ExportResult:
        engine: Engine = self._engine
        if self._offset >= 0:
            self._wait(lambda: engine.tried(self._offset, self._stop), engine.patience)
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
        return f"Receipt({self.id}{'' if self._count == 1 else f', {self._count} records'})"


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
