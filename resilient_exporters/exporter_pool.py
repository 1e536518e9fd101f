"""ExporterPool: one send, many targets, one queue."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from resilient_exporters import errors
from resilient_exporters.delivery.engine import Member
from resilient_exporters.exporter import Exporter
from resilient_exporters.options import DEFAULTS
from resilient_exporters.units import parse_count

__all__ = ["ExporterPool"]


class ExporterPool(Exporter):
    """Sends each record to several targets, through one queue in which every target has its own place.

    A member that is down, slow or refuses a record changes nothing for the others. Pools may be members: their
    exporters become targets of this queue.

    Args:
        exporters: exporters and pools; more may come by ``add_exporter``.
        transform: supersedes the members' own. Without one, a member's own (or that of an inner pool) is applied to
            what that member is given.
        num_threads: worker threads that are started with the first batch. More are started as targets need them;
            targets never wait for each other.
        wait_for_result: False: a receipt that is unpacked waits for no attempt.
        use_memory, manual_reexport: as for ``Exporter``.
        **options: as for ``Exporter``. ``retry``, ``batch_records``, ``batch_bytes``, ``drain`` and ``drain_rate`` hold
            for the members to which they were not given themselves.

    Raises:
        InvalidConfigError: an option cannot be what was given.
    """

    kind = "pool"
    record_options = None
    _many = True

    def __init__(
        self,
        exporters: Iterable[Any] | None = (),
        transform: Callable[[Any], Any] | None = None,
        num_threads: int = 1,
        wait_for_result: bool = True,
        use_memory: bool | None = None,
        manual_reexport: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(wait_for_result, bool):
            raise errors.InvalidConfigError(None, f"wait_for_result={wait_for_result!r} is no bool: give True or False")
        self._threads = parse_count(num_threads, "num_threads") or 1
        self._wait_for_result = wait_for_result
        self._exporters: dict[str, Exporter] = {}
        self._parents: weakref.WeakSet[ExporterPool] = weakref.WeakSet()
        super().__init__(transform, use_memory=use_memory, manual_reexport=manual_reexport, **options)
        self.checks = False  # until a member does
        if exporters is not None and not isinstance(exporters, Iterable):
            raise errors.InvalidConfigError(None, f"exporters={exporters!r}: give a list of exporters")
        for exporter in exporters or ():
            self.add_exporter(exporter)

    @property
    def exporters(self) -> Mapping[str, Exporter]:
        """The members by name."""
        return dict(self._exporters)

    def __len__(self) -> int:
        return len(self._exporters)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Exporter]:
        return iter(list(self._exporters.values()))

    def add_exporter(self, exporter: Any) -> None:
        """One more member. It gets the records that are sent from now on, or goes on where it stood at an earlier run.

        Args:
            exporter: an exporter, a pool, or any object with ``send`` and ``has_unsent_data``.

        Raises:
            InvalidConfigError: it is none of these, or it is this pool.
        """
        member = _as_exporter(exporter)
        if member is self or (isinstance(member, ExporterPool) and member.contains(self)):
            raise errors.InvalidConfigError(self, "a pool cannot be its own member")
        with self._opening:
            self._exporters[_free_name(member.name, self._exporters)] = member
        if isinstance(member, ExporterPool):
            member._parents.add(self)
        self._grow()

    def check(self, data: Any, options: Mapping[str, Any]) -> None:
        """Let each member look at a record that wants to."""
        for exporter in self._exporters.values():
            if exporter.checks:
                exporter.check(data, options)

    def _grow(self) -> None:
        """Members came: give the engine, and those of the pools around this one, their new targets."""
        with self._opening:
            self.checks = any(exporter.checks for exporter in self._exporters.values())
            self._slow = self._engine is None or not self._fast()
            if self._engine is not None:
                known = {target.cursor.identity for target in self._engine.targets}
                for new in self._members():
                    if new.identity not in known:
                        self._engine.add(new)
        for parent in list(self._parents):
            parent._grow()

    def contains(self, pool: Exporter) -> bool:
        """Whether a pool is a member, at any depth."""
        return any(
            one is pool or (isinstance(one, ExporterPool) and one.contains(pool)) for one in self._exporters.values()
        )

    def address(self) -> str:
        """The program: a pool is the same at its next start even if its members changed."""
        return str(Path(sys.argv[0]).absolute()) if sys.argv and sys.argv[0] not in ("", "-c", "-m") else ""

    def _members(self) -> list[Member]:
        found: dict[str, Member] = {}
        # The pool's own transform runs in send, so the members' are not asked for.
        self._collect(found, {}, transform=None, superseded=self._transform is not None)
        return list(found.values())

    def _collect(
        self,
        found: dict[str, Member],
        defaults: Mapping[str, Any],
        *,
        transform: Callable[[Any], Any] | None,
        superseded: bool,
    ) -> None:
        given = {name: value for name, value in self._given.items() if value != DEFAULTS[name]}
        options = {**given, **defaults}
        for name, exporter in self._exporters.items():
            own = transform
            if own is None and not superseded:
                own = exporter._transform
            if isinstance(exporter, ExporterPool):
                exporter._collect(found, options, transform=own, superseded=superseded)
            else:
                identity = _free_name(name, found)
                found[identity] = exporter.as_member(identity, options, own)

    def _patience(self) -> float | None:
        if not self._wait_for_result:
            return 0.0
        return max((exporter.timeout for exporter in self._exporters.values()), default=self.timeout) or None

    def _workers(self) -> int:
        return self._threads


def _as_exporter(exporter: Any) -> Exporter:
    if isinstance(exporter, Exporter):
        return exporter
    if callable(getattr(exporter, "send", None)) and callable(getattr(exporter, "has_unsent_data", None)):
        return _Foreign(exporter)
    raise errors.InvalidConfigError(None, f"{exporter!r} is no exporter: it has no send and has_unsent_data")


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free


class _Foreign(Exporter):
    """An object of someone else's that has ``send``."""

    kind = "foreign"
    record_options = None

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        super().__init__(name=str(getattr(inner, "name", "") or type(inner).__name__))

    def send(self, data: Any, **options: Any) -> Any:
        """Deliver one record: a class in the original's style."""
        return self._inner.send(data, **options)
