"""Exporter: what a program calls, and what a target's class is made from."""

from __future__ import annotations

import builtins
import dataclasses
import os
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from resilient_exporters import errors
from resilient_exporters.codec import encode, encode_with_options
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.deadletters import DeadLetter
from resilient_exporters.delivery.directory import default_directory
from resilient_exporters.delivery.engine import Engine, Member
from resilient_exporters.delivery.frame import OPTIONS
from resilient_exporters.delivery.listener import Listener, Listeners
from resilient_exporters.delivery.outcome import Batch, Delivered, Outcome, Record, Retry
from resilient_exporters.delivery.receipt import ExportResult, Receipt
from resilient_exporters.delivery.settings import Default, Settings
from resilient_exporters.delivery.stats import CloseReport, FlushReport, Stats
from resilient_exporters.options import (
    DEFAULTS,
    check_concurrency,
    check_listeners,
    check_name,
    check_type,
    unknown_options,
    window_of,
)  # fmt: skip
from resilient_exporters.transform import apply_transform, preparer
from resilient_exporters.units import parse_callable, parse_count, parse_seconds

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Exporter"]

_FAST = frozenset({dict, str, bytes})
_PROBE_TIMEOUT = 0.5
_TARGET_OPTIONS = ("retry", "batch_records", "batch_bytes", "drain", "drain_rate", "manual")


class Exporter:
    """Sends records to one target, and never makes the caller wait for it.

    A subclass writes ``export(batch)``; queueing, retries, order and recovery are here. Constructing an exporter
    opens nothing: the queue is opened, and what an earlier run left is taken up again, at the first use.

    Args:
        transform: called with a copy of each record; returns what is sent instead.
        timeout: seconds that one attempt may take before it is given up; 0 for no limit.
        use_memory: True is ``loss_window=None``, False is the default ``loss_window``; None leaves it as given.
        manual_reexport: True: what failed waits for ``flush`` or ``send_unsent_data``. Default: it is sent again
            by itself.
        name: of the target in figures, logs and dead letters, and its identity across restarts. Default: what it
            is and where.
        directory: the queue directory. Default: one derived from ``name``, under the user's state folder.
        loss_window: seconds: a power cut takes at most what was accepted in the last so many. None: memory only,
            which a restart of the program survives, a reboot does not. 0: ``send`` returns when the record is on
            disk.
        max_records: how many records may wait; None: as many as the bytes allow.
        max_memory: bytes of memory for waiting records.
        max_disk: bytes of disk, as ``du`` shows them.
        min_free_disk: bytes that the file system keeps free.
        max_age: seconds after which a record that still waits is dropped; None: never.
        on_full: "drop_oldest", "drop_newest", "block" (until there is room, at most ``full_timeout``) or "raise".
        full_timeout: seconds that "block", and a save for ``loss_window=0``, wait; None: as long as it takes.
        batch_records, batch_bytes: bounds of one batch.
        linger: seconds that a record waits for others to make a batch with.
        concurrency: batches in flight at most; 1 keeps the order; "auto" grows with the backlog. None: the class's.
        retry: a ``RetryPolicy`` or a tenacity ``wait_*`` strategy. Default: full jitter, 1 s to 5 min, for ever.
        drain: "fifo", "newest_first" or "balanced" (fresh records first, the backlog in the rest).
        drain_rate: upper limit of what the target is given: records a second, or a text such as "50 kB/s".
        max_dead: how many dead letters are kept.
        listeners: ``Listener`` objects, told of what happens.
        tmp_file: the original's name for ``directory``.
        save_unsent_data: False: what waits at ``close`` is dropped, and counted.
        test_url: fetched before a target that failed is probed; an answer of any kind will do.

    Raises:
        InvalidConfigError: an option cannot be what was given.
    """

    kind: ClassVar[str] = "exporter"
    concurrency: ClassVar[int | str] = 1
    record_options: ClassVar[frozenset[str] | None] = frozenset()
    retryable: ClassVar[tuple[type[BaseException], ...]] = (errors.RetryableError, builtins.OSError)
    rejected: ClassVar[tuple[type[BaseException], ...]] = (errors.RejectedError, errors.DataTypeError)
    held: ClassVar[tuple[type[BaseException], ...]] = (
        errors.HoldError, errors.MissingConfigError, errors.InvalidConfigError, errors.MissingModuleError,
    )  # fmt: skip

    _many = False
    _any_option = False

    def __init__(
        self,
        transform: Callable[[Any], Any] | None = None,
        timeout: float | timedelta = 30.0,
        use_memory: bool | None = None,
        manual_reexport: bool = False,
        *,
        name: str | None = None,
        directory: str | os.PathLike[str] | None = None,
        loss_window: float | timedelta | None = Default.loss_window,
        max_records: int | None = None,
        max_memory: int | str = Default.max_memory,
        max_disk: int | str = Default.max_disk,
        min_free_disk: int | str = Default.min_free_disk,
        max_age: float | timedelta | None = None,
        on_full: str = Default.on_full,
        full_timeout: float | timedelta | None = None,
        batch_records: int = Default.batch_records,
        batch_bytes: int | str = Default.batch_bytes,
        linger: float | timedelta = Default.linger,
        concurrency: int | str | None = None,
        retry: Any = None,
        drain: str = Default.drain,
        drain_rate: float | str | None = None,
        max_dead: int = Default.max_dead,
        listeners: Iterable[Listener] = (),
        tmp_file: str | os.PathLike[str] | None = None,
        save_unsent_data: bool = True,
        test_url: str | None = None,
        clock: Clock | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise unknown_options(type(self), unknown)
        if directory is not None and tmp_file is not None:
            raise errors.InvalidConfigError(None, "directory and tmp_file are two names of one option: give one")
        self._transform: Callable[[Any], Any] | None = None
        if transform is not None:
            self._transform = parse_callable(transform, "transform")
        self.timeout = parse_seconds(timeout, "timeout") or 0.0
        self.test_url = check_type(test_url, str, "test_url", "a URL")
        self._given: dict[str, Any] = {
            "loss_window": window_of(use_memory, loss_window),
            "max_records": max_records,
            "max_memory": max_memory,
            "max_disk": max_disk,
            "min_free_disk": min_free_disk,
            "max_age": max_age,
            "on_full": on_full,
            "full_timeout": full_timeout,
            "batch_records": batch_records,
            "batch_bytes": batch_bytes,
            "linger": linger,
            "retry": retry,
            "drain": drain,
            "drain_rate": drain_rate,
            "max_dead": max_dead,
            "manual": manual_reexport,
            "save_unsent": save_unsent_data,
            "directory": tmp_file if directory is None else directory,
        }
        self._settings = Settings.check(**self._given)
        self._concurrency = check_concurrency(concurrency, type(self))
        self._listeners = check_listeners(listeners)
        self._clock = check_type(clock, Clock, "clock", "a Clock") or Clock()
        self.name = check_name(name, self.kind, self.address())
        if type(self).send is not Exporter.send:
            # A class in the original's style: its ``send`` delivers one record, callers get the queueing one.
            self.send = types.MethodType(Exporter.send, self)  # type: ignore[method-assign] # for this instance
            if type(self).record_options is Exporter.record_options:
                self._any_option = True
        self._engine: Engine | None = None
        self._engines: weakref.WeakSet[Engine] = weakref.WeakSet()
        self._closed = False
        self._slow = True
        self._accept: Callable[[bytes], int]
        self.checks = type(self).check is not Exporter.check
        self._opening = threading.RLock()
        _ALL.add(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" not in cls.__dict__ and cls.kind == "exporter":
            cls.kind = cls.__name__

    # -- for subclasses ------------------------------------------------------------------------------------------

    def export(self, batch: Batch) -> Outcome | Sequence[Outcome | None] | None:
        """Deliver one batch. Called in a worker thread.

        Args:
            batch: records with ``.id``, ``.data`` and ``.options``, in the order of acceptance.

        Returns:
            None: all delivered. One outcome for all of them, or a list with one for each (None: delivered).

        Raises:
            Exception: ``retryable`` ones leave the batch waiting, ``rejected`` ones single out what is wrong in
                it, ``held`` ones wait for someone; any other is unclear and the batch is bisected.
        """
        if type(self).send is Exporter.send:
            raise NotImplementedError(f"{type(self).__name__} must define export(batch)")
        return [self._deliver_by_send(record) for record in batch]

    def _deliver_by_send(self, record: Record) -> Outcome | None:
        result: Any = type(self).send(self, record.data, **record.options)
        if isinstance(result, tuple) and len(result) == 2:
            returned, successful = result
            return Delivered(returned) if successful else Retry(None, "send() says that it was not successful")
        if result is None:
            return None
        raise errors.ExportError(self, f"send() must return (returned, successful), not {result!r:.80}")

    def connect(self) -> None:
        """Get ready. Called in a worker thread before the first batch, and again after ``disconnect``."""

    def disconnect(self) -> None:
        """Let go of connections. Called after an attempt that failed, and at the end."""

    def check(self, data: Any, options: Mapping[str, Any]) -> None:
        """Look at a record in ``send``, where the caller sees what is wrong. Every ``send`` pays for it.

        Raises:
            MissingConfigError, DataTypeError: it cannot be delivered as it is.
        """

    def address(self) -> str:
        """Where the target is, without any secret: part of its identity across restarts."""
        return ""

    def probe(self) -> None:
        """Called before a target that failed is tried again. Fetches ``test_url``, if there is one.

        Raises:
            ConnectionError: it does not answer.
        """
        if self.test_url is None:
            return
        import urllib.error
        import urllib.request

        try:
            urllib.request.urlopen(self.test_url, timeout=_PROBE_TIMEOUT).close()  # noqa: S310 - the user's own URL
        except urllib.error.HTTPError as error:
            error.close()  # an answer of any kind says that the way is there
        except OSError as error:
            raise errors.ConnectionError(self, f"test_url {self.test_url} does not answer: {error}") from error

    def mended(self) -> None:
        """Tell that what the target was held for is mended: it is tried at once, wherever this is a target."""
        for engine in list(self._engines):
            engine.mended(self)

    def joined(self, engine: Engine) -> None:
        """Called by an engine of which this is a target now."""
        self._engines.add(engine)

    # -- sending -------------------------------------------------------------------------------------------------

    def send(self, data: Any, **options: Any) -> Receipt:
        """Hand over a record, or a list of records, and go on.

        The record is copied at once: later changes to it do not reach the queue.

        Args:
            data: a mapping, a text, bytes, or whatever else the target takes; a list is many records.
            **options: for this record, as the target's class allows them.

        Returns:
            A receipt: ignore it, or ask it what became of the record.

        Raises:
            EncodingError: it holds something that cannot be kept; None, or an empty list.
            TransformError: the transform failed.
            InvalidConfigError: no such option.
            QueueFullError: ``on_full`` is "raise", or "block" and time ran out.
            ClosedError: after ``close``.
            QueueLockedError: at the first use, if ``directory`` is held by another process.
        """
        if options or self._slow or type(data) not in _FAST:
            return self._send(data, options)
        return Receipt(self._engine, self._accept(encode(data)))

    def _send(self, data: Any, options: dict[str, Any]) -> Receipt:
        allowed = None if self._any_option else self.record_options
        if options and allowed is not None and (strange := set(options) - allowed):
            known = ", ".join(sorted(allowed)) or "none"
            raise errors.InvalidConfigError(self, f"send() has no option {', '.join(sorted(strange))}; it has: {known}")
        engine = self._open()
        many = isinstance(data, list)
        if many and not data:
            raise errors.EncodingError(self, "an empty list is no record: send nothing instead")
        records = data if many else [data]
        payloads = [self._encode(one, options, f"record[{at}]" if many else "record") for at, one in enumerate(records)]
        append, flags = engine.queue.append, OPTIONS if options else 0
        offsets = [append(payload, flags) for payload in payloads]
        if engine.queue.settings.loss_window == 0 and max(offsets) >= 0:
            engine.commit(max(offsets))
        return Receipt(engine, offsets[0], tuple(offsets[1:]))

    def _encode(self, data: Any, options: dict[str, Any], path: str) -> bytes:
        if data is None or isinstance(data, (list, set, frozenset)):
            what = "None" if data is None else f"a {type(data).__name__}"
            raise errors.EncodingError(self, f"{path} is {what}: a record is a mapping, a text or bytes")
        if self._transform is not None:
            data = apply_transform(self, self._transform, data)
        if self.checks:
            self.check(data, options)
        return encode_with_options(data, options) if options else encode(data, path)

    @property
    def transform(self) -> Callable[[Any], Any]:
        """The transform, applied to a copy; without one, data comes back unchanged. Cannot be set."""
        return lambda data: data if self._transform is None else apply_transform(self, self._transform, data)

    # -- waiting -------------------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None, max_records: int | None = None) -> FlushReport:
        """Deliver what waits, now: targets that failed are probed at once.

        Ends when everything accepted before is settled, when each target that is left has failed a probe, after
        ``timeout`` seconds, or after ``max_records`` deliveries. Never loops on a dead target.
        """
        seconds = parse_seconds(timeout, "timeout", none_ok=True)
        return self._open().flush(seconds, parse_count(max_records, "max_records", minimum=0, none_ok=True))

    def save(self, timeout: float | None = None) -> bool:
        """Put everything accepted so far on disk. False: not in time, or the disk does not take it."""
        return self._open().keeper.save(parse_seconds(timeout, "timeout", none_ok=True))

    def close(self, timeout: float = 5.0) -> CloseReport:
        """Save what waits, deliver what a healthy target takes within ``timeout`` seconds, and end.

        Further calls do nothing and return an empty report. What is left is delivered by the next start.
        """
        seconds = parse_seconds(timeout, "timeout") or 0.0
        with self._opening:
            self._slow = True
            engine, closed = self._engine, self._closed
            self._closed = True
        if engine is None or closed:
            return CloseReport(delivered=0, saved=0, pending=0, lost=0, seconds=0.0)
        return engine.close(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- asking --------------------------------------------------------------------------------------------------

    @property
    def directory(self) -> Path | None:
        """The queue directory; None if there is none to be had."""
        if self._engine is not None:
            return self._engine.directory
        return self._settings.directory or default_directory(self._key())

    @property
    def use_memory(self) -> bool:
        """Whether records wait in memory only (``loss_window`` is None). Can be set."""
        return (self._engine.queue.settings if self._engine is not None else self._settings).loss_window is None

    @use_memory.setter
    def use_memory(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise errors.InvalidConfigError(self, f"use_memory={value!r} is no bool: give True or False")
        if value != self.use_memory:
            window = (
                None
                if value
                else (self._settings.loss_window if self._settings.loss_window is not None else Default.loss_window)
            )
            self._settings = dataclasses.replace(self._settings, loss_window=window)
            if self._engine is not None:
                self._engine.queue.settings = dataclasses.replace(self._engine.queue.settings, loss_window=window)
                if window is not None:
                    self._engine.keeper.save_soon()
            self._slow = self._engine is None or not self._fast()

    @property
    def manual_reexport(self) -> bool:
        """Whether what failed waits for ``flush`` or ``send_unsent_data``."""
        return self._settings.manual

    def stats(self) -> Stats:
        """Figures, taken without waiting for disk or network. All zero before the first use."""
        engine = self._engine
        return Stats() if engine is None else engine.stats()

    def has_unsent_data(self) -> bool:
        """Whether something waits that some target has not settled."""
        return self._open().stats().pending > 0

    def send_unsent_data(self) -> list[ExportResult]:
        """Try what waits once more, at most ``timeout`` seconds. One result for each record that waited."""
        engine = self._open()
        before = engine.stats().pending
        report = self.flush(self.timeout or None)
        done = max(0, before - (report.pending if not self._many else engine.stats().pending))
        return [ExportResult(None, True)] * done + [ExportResult(None, False)] * (before - done)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """The records that a target refused for good, oldest first."""
        return self._open().mailroom.letters()

    def mark(self) -> str:
        """Where the queue stands: the id that the next record gets. For ``accepted_since``, also after a restart."""
        engine = self._open()
        return engine.id_of(engine.queue.following)

    def accepted_since(self, mark: str) -> int | None:
        """How many records were accepted since a ``mark``; None if nobody can tell: it is of another queue."""
        engine = self._open()
        run, _, offset = mark.rpartition("-")
        number = engine.queue.following - int(offset)
        return number if number >= 0 and run in (engine.ring.run.hex(), engine.queue.lineage.hex()) else None

    def replay(self, *ids: str) -> int:
        """Queue dead letters again, for the target that refused them; without ids all. Returns how many."""
        return self._open().mailroom.replay(ids)

    def discard(self, *ids: str) -> int:
        """Throw dead letters away; without ids all. They count as dropped. Returns how many."""
        return self._open().mailroom.discard(ids)

    # -- opening -------------------------------------------------------------------------------------------------

    def _open(self) -> Engine:
        with self._opening:
            if self._closed:
                raise errors.ClosedError(self, "closed: make a new one")
            if self._engine is None:
                self._engine = Engine(
                    name=self.name,
                    key=self._key(),
                    settings=self._settings,
                    members=self._members(),
                    listener=Listeners(self._listeners),
                    clock=self._clock,
                    patience=self._patience(),
                    many=self._many,
                    workers=self._workers(),
                )
                self._accept = self._engine.queue.append
                weakref.finalize(self, self._engine.close_forgotten).atexit = False
                self._slow = not self._fast()
            return self._engine

    def _fast(self) -> bool:
        return self._transform is None and self._settings.loss_window != 0 and not self.checks

    def _key(self) -> str:
        return self.name

    def _patience(self) -> float | None:
        return self.timeout or None

    def _workers(self) -> int:
        return 1

    def _members(self) -> list[Member]:
        return [self.as_member(self.name, {}, None)]

    def as_member(self, identity: str, defaults: Mapping[str, Any], transform: Callable[[Any], Any] | None) -> Member:
        """This exporter as one target of an engine.

        Args:
            identity: what it is called there.
            defaults: options of the pool, for what was not given to this exporter.
            transform: applied to each record before it is delivered.
        """
        own = {name: value for name, value in self._given.items() if value != DEFAULTS[name]}
        given = {name: value for name, value in {**defaults, **own}.items() if name in _TARGET_OPTIONS}
        settings = Settings.check(**{**self._given, **given})
        prepare = None if transform is None else preparer(transform)
        return Member(self, identity, self._concurrency, settings, prepare)

    def _forget(self) -> None:
        """In a forked child: the queue is the parent's; the next ``send`` opens one of our own."""
        self._engine = None
        self._engines = weakref.WeakSet()
        self._slow = True
        self._opening = threading.RLock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


_ALL: weakref.WeakSet[Exporter] = weakref.WeakSet()


def _after_fork() -> None:
    for exporter in list(_ALL):
        exporter._forget()


os.register_at_fork(after_in_child=_after_fork)
