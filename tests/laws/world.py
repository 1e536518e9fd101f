"""A world for the model: one machine, its disk and clocks, the targets, and the process that runs just now.

What the engine does is judged against what should be (``notes``), what the targets saw, and what ``stats`` says.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import Exporter, ExporterPool, QueueFullError, Stats
from resilient_exporters.delivery import engine as engine_module
from resilient_exporters.delivery import guard, recovery, ring
from resilient_exporters.delivery import keeper as keeper_module
from resilient_exporters.delivery.breaker import CLOSED
from resilient_exporters.delivery.cursor import Cursor
from resilient_exporters.delivery.dispatcher import Dispatcher
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.spool import Spool, SpoolUnavailable, disk_bytes
from resilient_exporters.delivery.target import Target
from tests.laws.notes import Book, Notes
from tests.laws.sites import Scripted, Site
from tests.laws.stage import Killed

__all__ = ["DISKS", "World"]

DISKS = ("ok", "full", "failing", "lying", "no room")
_SHM = Path("/dev/shm")


class World(Notes):
    """The machine and what runs on it.

    Args:
        seed, restless: of the stage.
        alone: an exporter of its own, not a pool.
        names: of the targets.
        options: of the exporter.
    """

    def __init__(
        self, seed: int, restless: float, *, alone: bool = False, names: Iterable[str] = ("a", "b"),
        options: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(seed, restless)
        self.folder = Path(tempfile.mkdtemp(prefix="model-", dir=_SHM if _SHM.is_dir() else None))
        self.directory = self.folder / "queue"
        self.alone = alone
        self.options: dict[str, Any] = {"linger": 0, "min_free_disk": 0, "max_memory": 65_536, **(options or {})}
        self.member_options: dict[str, dict[str, Any]] = {}
        self.sites = {name: Site(name) for name in names}
        self.present: list[str] = []
        self.disk = "ok"
        self.sound_since = self.stage.now
        self.memory_low = False
        self.links: frozenset[str] = frozenset({"lo"})
        self.files: dict[str, bytes] = {}
        self.stage.on_crash = self._take_files
        self._patch = pytest.MonkeyPatch()
        self._put_on()
        self.exporter: Exporter

    # -- a process begins and ends -----------------------------------------------------------------------------------

    def start(self, present: Iterable[str]) -> None:
        """A process starts, with these targets."""
        self.present = list(present)
        for name in [*self.present, *(one for one in self.books if one not in self.present)]:
            book = self.books.setdefault(name, Book())
            book.present = name in self.present
            if not book.present and not book.open and not book.letters:
                del self.books[name]  # it is gone, and nothing waits for it: it is forgotten
        options = {**self.options, "clock": self.clock, "directory": self.directory}
        if self.alone:
            del options["clock"]
            self.exporter = Scripted(self, self.sites["a"], **options)
        else:
            members = [Scripted(self, self.sites[name], **self.member_options.get(name, {})) for name in self.present]
            self.exporter = ExporterPool(members, name="pool", **options)
        self.exporter.has_unsent_data()
        if not self.engine.keeper._blind:
            self.maybe, self.placing = None, []

    def end(self, *, power: bool = False) -> None:
        """The process is killed, here and now; ``power``: the machine with it."""
        self._take_files()
        self.bury(power=power)

    def bury(self, *, power: bool = False) -> None:
        """What is left of a killed process goes; what it left on disk and in memory is there."""
        engine = self.exporter._engine
        self.stage.kill_others()
        if engine is not None:
            self._let_go(engine)
        for file in self.folder.rglob("*"):
            if file.is_file():
                file.unlink()
        for name, content in self.files.items():
            if not (power and name.endswith(".ring")):
                path = self.folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                path.chmod(0o600)
        if power:
            self.cut = True
            self.clock.boots += 1
            self.clock.started = self.stage.now
        self.given.clear()
        self.taken.clear()
        self.attempts.clear()
        for book in self.books.values():
            book.suspicious = False

    def _let_go(self, engine: Engine) -> None:
        engine.closed = True
        engine_module._LIVE.discard(engine)
        engine.place.abandon()

    def _take_files(self) -> None:
        if self.appending:
            self.maybe = self.appending[0]
        self.files = {
            str(file.relative_to(self.folder)): file.read_bytes()
            for file in self.folder.rglob("*")
            if file.is_file() and not file.name.endswith("-shm")
        }

    def close(self) -> None:
        """Nothing is left of this world."""
        self.stage.main.killed = False
        self.stage.crash_in = None
        self.stage.kill_others()
        engine = getattr(self, "engine", None)
        if engine is not None:
            self._let_go(engine)
        self._patch.undo()
        logging.getLogger("resilient_exporters").removeHandler(self._log)
        shutil.rmtree(self.folder)

    # -- what the program does -----------------------------------------------------------------------------------------

    def start_again(self, present: Iterable[str]) -> None:
        """The next process."""
        self.start(["a"] if self.alone else sorted(present))

    def send(self, records: list[int]) -> None:
        """Send one record, or a list."""
        self.appending = list(records)
        data = [self.sent[record] for record in records]
        given = [dict(one) for one in data]
        before = self.stage.now
        try:
            self.exporter.send(given if len(given) > 1 else given[0])
        except QueueFullError:
            self.may_miss.update(records)  # that is what it says
        finally:
            self.appending = []
        for one in given:
            one.clear()  # what is changed later does not reach the queue
        if self.engine.settings.on_full != "block" and self.engine.settings.loss_window != 0:
            assert self.stage.now - before < 1e-3, f"send took {self.stage.now - before:g} s"

    def flush(self, timeout: float | None, most: int | None = None) -> bool:
        before = self.stage.now
        report = self.exporter.flush(timeout, most)
        if timeout is not None:
            assert self.stage.now - before <= timeout + 1e-3, f"flush took {self.stage.now - before:g} s"
        return report.complete

    def save(self, timeout: float | None) -> bool:
        before = self.stage.now
        saved = self.exporter.save(timeout)
        assert timeout is None or self.stage.now - before <= timeout + 1e-3
        return saved

    def shut(self, timeout: float) -> None:
        """Close: in time, and with a true report."""
        before = self.stage.now
        report = self.exporter.close(timeout)
        took = self.stage.now - before
        assert took <= timeout + 0.5 * (3 + len(self.present)), f"close took {took:g} s"
        assert report.lost == 0
        self.settle_letters()
        waiting = {place for book in self.books.values() for place in book.open}  # a replay is one more for its target
        if self.sound(self.engine):
            assert report.pending == len(waiting), f"{report} and {waiting}"

    @staticmethod
    def sound(engine: Engine) -> bool:
        return engine.keeper.trouble is None and not engine.keeper._blind

    def drain(self) -> None:
        """Everything is mended: without another word everybody gets what is theirs, and nothing is left."""
        self.disk, self.memory_low = "ok", False
        for site in self.sites.values():
            site.mood = "ok"
            site.released += 1
        self._deliver_all()
        self.shut(5.0)
        left = [name for name, book in self.books.items() if book.open and not book.present]
        if left:
            self.start(left)
            self._deliver_all()
            self.shut(5.0)

    def _deliver_all(self) -> None:
        for _ in range(4):
            self.stage.advance(400.0)
            self.judge()
            if self.options.get("manual_reexport"):
                self.flush(None)
        for name in self.present:
            assert not self.books[name].open, f"{name} waits for {self.books[name].open}"

    def join(self, name: str) -> None:
        """One more target, at once."""
        if self.alone or name in self.present:
            return
        self.books.setdefault(name, Book()).present = True
        self.present.append(name)
        assert isinstance(self.exporter, ExporterPool)
        self.exporter.add_exporter(Scripted(self, self.sites[name], **self.member_options.get(name, {})))

    def replay(self, which: int) -> None:
        """Replay one dead letter, or all."""
        with suppress(QueueFullError, SpoolUnavailable):
            self.exporter.replay(*self._letters(which))

    def discard(self, which: int) -> None:
        """Throw one away, or all."""
        with suppress(SpoolUnavailable):
            self.exporter.discard(*self._letters(which))

    def _letters(self, which: int) -> list[str]:
        letters = sorted({record for book in self.books.values() for record in book.letters})
        return [self.ids[record] for record in letters[which : which + 1]]

    # -- the machine -------------------------------------------------------------------------------------------------

    def _put_on(self) -> None:
        patch, world = self._patch, self
        self.stage.put_on(patch)
        self.take_notes(patch)
        patch.setattr(keeper_module, "attach", self._attaching(recovery.attach))
        patch.setattr(Keeper, "_join", self._joined(Keeper._join))
        patch.setattr(ring, "_SHM", self.folder)
        patch.setattr(guard.ResourceGuard, "growth", lambda _: 0 if world.disk == "no room" else 1 << 40)
        patch.setattr(guard.ResourceGuard, "look", lambda guard: setattr(guard, "memory_low", world.memory_low))
        patch.setattr(guard.LinkWatch, "_look", staticmethod(lambda: world.links))
        for name in ("open", "write", "get", "keys"):
            patch.setattr(Spool, name, _failing(self, getattr(Spool, name), name))
        patch.setattr(Engine, "_start", self._starting(Engine._start))
        patch.setattr(Dispatcher, "start", self._opened(Dispatcher.start))
        patch.setattr(Keeper, "_work", self._working(Keeper._work))
        self._log = _Slips(self.faults)
        logging.getLogger("resilient_exporters").addHandler(self._log)

    def _working(self, work: Callable[[Keeper], None]) -> Callable[[Keeper], None]:
        def run(keeper: Keeper) -> None:
            try:
                work(keeper)
            finally:
                cache = keeper._spool._cache
                if cache is not None:  # killed: a connection belongs to its thread
                    cache.close()

        return run

    def _starting(self, start: Callable[..., None]) -> Callable[..., None]:
        def starting(engine: Engine, members: Any) -> None:
            self.engine = engine
            self.listen(engine)
            start(engine, members)

        return starting

    def _opened(self, start: Callable[[Dispatcher], None]) -> Callable[[Dispatcher], None]:
        def opened(dispatcher: Dispatcher) -> None:
            self.compare()  # before anything is delivered
            start(dispatcher)

        return opened

    def _attaching(self, attach: Callable[..., None]) -> Callable[..., None]:
        def attaching(*given: Any, late: bool = False) -> None:
            attach(*given, late=late)
            if late:
                self.compare(late=True)

        return attaching

    def _joined(self, join: Callable[..., None]) -> Callable[..., None]:
        def joined(keeper: Keeper, *, late: bool) -> None:
            join(keeper, late=late)
            if late:
                self._find_letters()

        return joined

    # -- judging -----------------------------------------------------------------------------------------------------

    def settle_letters(self) -> None:
        """Bring the books up to the dead letters that there are."""
        if self.engine.keeper._blind:
            return
        known = {(name, self.numbers[one]) for one, name in self.engine.keeper.letters._known}
        for name, book in self.books.items():
            there = {record for target, record in known if target == name}
            if not book.uncounted:
                book.accepted += len(there - book.letters)  # it waits as well: its replay did not come to an end
            elif name in self.engine.queue.cursors:
                book.accepted += len(there)
                book.uncounted = False
            book.letters = there

    def judge(self) -> Stats:
        """Everybody rests: the figures are true, the bounds are kept, the healthy targets have everything."""
        self.stage.rest()
        assert not self.faults, "\n".join(self.faults)
        self.settle_letters()
        stats, engine = self.exporter.stats(), self.engine
        assert set(stats.targets) == set(self.present)
        for name, figures in stats.targets.items():
            book = self.books[name]
            settled = figures.delivered + sum(figures.dropped.values()) + figures.dead
            assert figures.accepted == settled + figures.pending, f"{name}: {figures}"
            if engine.keeper._blind:
                continue
            found = (figures.accepted, figures.delivered, dict(figures.dropped), figures.dead, figures.pending)
            right = (book.accepted, book.delivered, dict(+book.dropped), len(book.letters), len(book.open))
            assert found == right, f"{name}: {found} should be {right}; open {book.open}"
        self._bounds(stats)
        for target in engine.targets:
            self._is_served(target)
        if stats.disk_trouble is not None or self.disk != "ok":
            self.sound_since = self.stage.now + 1e-9
        return stats

    def _bounds(self, stats: Stats) -> None:
        queue, settings = self.engine.queue, self.engine.settings
        assert 0 <= stats.memory_bytes <= queue.ring.capacity
        size = disk_bytes(self.directory)
        assert size <= settings.max_disk, f"{size} bytes on disk"

    def _is_served(self, target: Target) -> None:
        """Isolation, and that things go on: a healthy target waits for nothing."""
        book, before = self.books[target.name], self.stage.now - self.engine.settings.linger
        if self.sites[target.name].mood != "ok" or target.breaker.state != CLOSED or target.flying or target.stuck:
            return
        if self.engine.keeper.trouble is None and self.disk == "ok":
            waiting = {record for record in book.open.values() if self.born[record] <= before} - book.refused
            assert not waiting, f"{target.name} is healthy and waits for {waiting}"

    # -- restarts ----------------------------------------------------------------------------------------------------

    def compare(self, *, late: bool = False) -> None:
        """After a start: what waits is what should."""
        queue = self.engine.queue
        if self.engine.keeper._blind and not late:
            return
        if not late:
            self._find_letters()
        if self.cut:
            self.cut = False
            self._after_power_cut()
        for name, cursor in queue.cursors.items():
            book = self.books[name]
            there = _open_places(cursor, queue.following)
            more = there - set(book.open)
            if more and self.maybe is not None:
                (place,) = more
                self._perhaps(self.maybe, place)
                book.take(place, self.maybe)
                more = set()
            for place, record in zip(sorted(more), self.placing, strict=False):
                self._perhaps(record, place)
                book.take(place, record)
                more.discard(place)
            assert not more, f"{name}: {more} wait again"
            assert there == set(book.open), f"{name}: {set(book.open) - there} are gone"
        if late:
            self.maybe, self.placing = None, []

    def _find_letters(self) -> None:
        """A kill may have come between a letter and the cursor that counts it, or the record that is replayed."""
        own = {self.engine.ring.run.hex(), self.engine.queue.lineage.hex()}
        for run, offset, name in self.engine.keeper.letters.names():
            book, record = self.books[name], self.numbers[f"{run}-{offset}"]
            if record in book.letters:
                continue
            book.letters.add(record)
            if record in book.refused and run in own and offset in book.open:
                del book.open[offset]
            else:
                book.accepted += 1  # it waits as well, in this place or another: it was being replayed
        for book in self.books.values():
            book.refused.clear()

    def _after_power_cut(self) -> None:
        """What was in memory only is lost, as far as it was young; what the cursors on disk do not know comes again."""
        queue, window = self.engine.queue, self.engine.settings.loss_window
        for book in self.books.values():
            for record in book.open.values():
                age = self.stage.now - max(self.born[record], self.sound_since)
                if window is None or age < window:
                    self.may_miss.add(record)
        for name in [one for one in self.books if one not in queue.cursors]:
            assert not set(self.books[name].open.values()) - self.may_miss, f"{name}: the cursor is gone"
            letters = {self.numbers[one] for one, target in self.engine.keeper.letters._known if target == name}
            book = self.books[name] = Book()
            book.present, book.letters, book.uncounted = name in self.present, letters, True
            if not book.present and not letters:
                del self.books[name]
        self.at = {place: record for place, record in self.at.items() if place < queue.following}
        for name, cursor in queue.cursors.items():
            book = self.books.setdefault(name, Book())  # the disk may know one that was forgotten since
            book.present = name in self.present
            there = _open_places(cursor, queue.following)
            gone = {record for place, record in book.open.items() if place not in there}
            assert not gone - self.may_miss, f"{name}: {gone - self.may_miss} are gone"
            self.may_miss.update(self.at[place] for place in there if place not in book.open and place in self.at)
            book.open = {place: self.at.get(place, -1) for place in there}
            book.accepted, book.delivered = cursor.accepted(queue.following), cursor.delivered
            book.uncounted = False
            book.dropped = Counter(cursor.dropped)


def _open_places(cursor: Cursor, following: int) -> set[int]:
    end = following if cursor.left is None else cursor.left
    assert cursor.pending(following) < 100_000, f"{cursor.identity} waits for {cursor.pending(following)} records"
    return {place for start, stop in cursor.open(cursor.floor, end) for place in range(start, stop)}


def _failing(world: World, method: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A disk with moods."""

    def call(spool: Spool, *given: Any) -> Any:
        world.stage.pause()
        mood = world.disk
        fresh = name == "open" and spool._cache is None and not spool.exists
        if mood == "failing" or (mood == "full" and (name == "write" or fresh)):
            raise SpoolUnavailable("disk I/O error" if mood == "failing" else "database or disk is full")
        result = method(spool, *given)
        world.stage.pause()
        if mood == "lying" and name == "write":
            raise SpoolUnavailable("disk I/O error, and yet it was written")
        return result

    return call


class _Slips(logging.Handler):
    """What the package logs with a traceback is a slip of ours."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._faults = faults

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not isinstance(record.exc_info[1], Killed):
            self._faults.append(f"{record.getMessage()}\n{logging.Formatter().formatException(record.exc_info)}")
