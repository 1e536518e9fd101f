from __future__ import annotations

import functools
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import codec
from resilient_exporters.delivery.block import Block, unpack
from resilient_exporters.delivery.clock import Bell, Clock
from resilient_exporters.delivery.cursor import DEAD, DELIVERED, Cursor
from resilient_exporters.delivery.deadletters import Letter
from resilient_exporters.delivery.frame import frame
from resilient_exporters.delivery.guard import ResourceGuard
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.recovery import take_over
from resilient_exporters.delivery.rescue import Rescue, waiting_for_rescue
from resilient_exporters.delivery.ring import Ring
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.spool import STATE, Spool, SpoolDamaged, SpoolUnavailable, disk_bytes, key_of, rows
from tests.queues import SMALL, StillClock
from tests.targets import PATIENCE


class RungClock(StillClock):
    """Waits end by a ring only: what is put off comes when the test moves the time and rings."""

    def wait(self, bell: Bell, seconds: float | None) -> bool:
        return bell.wait(0 if seconds == 0 else PATIENCE)


class Told(Listener):
    def __init__(self) -> None:
        self.disk: list[str | None] = []
        self.drops: list[tuple[str | None, int, str]] = []

    def disk_changed(self, trouble: str | None) -> None:
        self.disk.append(trouble)

    def dropped(self, target: str | None, records: int, reason: str) -> None:
        self.drops.append((target, records, reason))


class Place:
    """A queue directory and its ring, opened as often as a test needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "queue"
        self.folder.mkdir()
        self.ring = folder / "ring"
        self.clock = RungClock()
        self.told = Told()
        self.max_disk = 8 << 20
        self.keepers: list[Keeper] = []

    def opened(self, clock: Clock | None = None, **options: Any) -> Keeper:
        clock = clock or self.clock
        queue = Queue(Settings.check(max_memory=SMALL, **options), Ring(self.ring, SMALL, self.folder), clock)
        take_over(queue)
        spool, guard = Spool(self.folder, self.max_disk), ResourceGuard(self.folder, 0)
        keeper = Keeper(queue, spool, guard, clock, self.told, "test")
        self.keepers.append(keeper)
        keeper.start()
        queue.settle_in()
        return keeper

    def rows(self) -> dict[int, bytes]:
        spool = Spool(self.folder, self.max_disk)
        spool.open()
        found = {key: spool.get(key) or b"" for key in [*spool.keys()[0], STATE]}
        spool.close()
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for keeper in made.keepers:
        assert keeper.stop(PATIENCE)


def fill(queue: Queue, count: int, size: int = 100) -> list[bytes]:
    payloads = [(b"%d." % (queue.following + at)).ljust(size, b"x") for at in range(count)]
    for payload in payloads:
        queue.append(payload)
    return payloads


def turn(keeper: Keeper) -> None:
    """Let the keeper come round once more, after whatever it was told before."""
    for _ in range(2):
        keeper.call(lambda: None, PATIENCE)


def failing(keeper: Keeper, error: Exception, *names: str) -> Callable[[], None]:
    def fails(*_: object) -> Any:
        raise error

    patch = pytest.MonkeyPatch()
    for name in names:
        patch.setattr(keeper._spool, name, fails)
    return patch.undo


def settle_dead(queue: Queue, cursor: Cursor, at: int) -> list[int]:
    return [] if queue.settle(cursor, at, at + 1, DEAD) else [0]


def letter(offset: int, target: str = "t") -> Letter:
    return Letter(b"run-8byt", offset, target, "refused", 1, 0.0, 0, codec.encode({"n": offset}))


def test_nothing_is_opened_before_there_is_something_to_save(place: Place) -> None:
    keeper = place.opened()
    keeper.queue.join("t")
    turn(keeper)
    assert list(place.folder.iterdir()) == []
    assert keeper.save(PATIENCE)
    assert list(place.folder.iterdir()) == []


def test_a_save_puts_everything_accepted_before_it_on_disk(place: Place) -> None:
    keeper = place.opened()
    keeper.queue.join("t")
    payloads = fill(keeper.queue, 50)
    assert keeper.save(PATIENCE)
    assert keeper.commit(49, PATIENCE)
    assert (keeper.queue.first_unsaved(), keeper.trouble) == (50, None)
    assert keeper.archive.written > 0
    assert keeper.archive.disk_bytes == disk_bytes(place.folder)
    keeper.stop(PATIENCE)
    rows = place.rows()
    (payload,) = [unpack(row) for key, row in rows.items() if key >= 0]
    assert [payload.data[item.start : item.stop] for item in payload.frames] == payloads


def test_callers_share_one_commit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = place.opened()
    keeper.queue.join("t")
    release, held = threading.Event(), threading.Event()
    writes: list[int] = []
    real = keeper._spool.write

    def counted(*arguments: Any) -> None:
        writes.append(1)
        real(*arguments)

    monkeypatch.setattr(keeper._spool, "write", counted)

    def hold() -> None:
        held.set()
        release.wait(PATIENCE)

    blocker = threading.Thread(target=keeper.call, args=(hold,))
    blocker.start()
    assert held.wait(PATIENCE)
    results: list[bool] = []
    callers = [threading.Thread(target=lambda at=at: results.append(keeper.commit(at, PATIENCE))) for at in range(8)]
    fill(keeper.queue, 8)
    for caller in callers:
        caller.start()
    while len(keeper._waiters) < 8:
        assert all(caller.is_alive() for caller in callers)
    release.set()
    for thread in [*callers, blocker]:
        thread.join(PATIENCE)
    assert results == [True] * 8
    assert len(writes) == 1


def test_a_restart_finds_what_was_saved(place: Place) -> None:
    first = place.opened()
    first.queue.join("t")
    fill(first.queue, 20)
    assert first.save(PATIENCE)
    first.stop(PATIENCE)
    place.ring.unlink()
    again = place.opened()
    cursor = again.queue.join("t")
    assert (again.queue.following, cursor.pending(20)) == (20, 20)
    # When a target wants them, then the keeper reads them
    loaded = threading.Event()
    again.queue.wake = loaded.set
    again.queue.stock.want(again.queue.stock.index[0])
    assert loaded.wait(PATIENCE)
    assert again.queue.stock.loaded(again.queue.stock.index[0]) is not None


def test_settled_rows_are_deleted_at_most_once_a_second_and_the_file_shrinks(place: Place) -> None:
    keeper = place.opened(max_disk="8 MB", batch_bytes="64 kB")
    cursor = keeper.queue.join("t")
    for at in range(200):
        keeper.queue.append(random.Random(at).randbytes(12_000))
        if at % 4 == 3:
            assert keeper.save(PATIENCE)
    assert keeper.queue.empty_ring()
    assert keeper.archive.disk_bytes > 1 << 20
    keeper.queue.settle(cursor, 0, 200, DELIVERED)
    keeper.tidy_soon()
    turn(keeper)
    before = keeper.archive.written
    assert keeper.queue.stock.freed
    place.clock.seconds += 1.5
    keeper.tidy_soon()
    turn(keeper)
    assert keeper.queue.stock.freed == []
    assert keeper.archive.written > before
    assert keeper.archive.disk_bytes < 1 << 20


def test_a_disk_that_fails_is_said_once_and_tried_again_later_and_later(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a disk that takes nothing
    keeper = place.opened()
    keeper.queue.join("t")
    fill(keeper.queue, 5)
    mended = failing(keeper, SpoolUnavailable("disk I/O error"), "write")
    assert not keeper.save(PATIENCE)
    assert keeper.trouble == "disk I/O error"
    waits = []
    for _ in range(8):
        waits.append(keeper._retry_wait)
        place.clock.seconds += keeper._retry_wait
        keeper.save_soon()
        turn(keeper)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    # A caller is not kept waiting by a disk that is known to fail
    with pytest.raises(ZeroDivisionError):
        keeper.call(lambda: 1 // 0)
    assert not keeper.call(lambda: keeper.write_row(1, b"x"))
    # When it works again, then everything is saved, and that is said
    mended()
    place.clock.seconds += 100
    assert keeper.save(PATIENCE)
    turn(keeper)
    assert keeper.trouble is None
    assert place.told.disk == ["disk I/O error", None]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_somebody_who_asks_while_a_full_disk_is_tidied_is_heard(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a disk that takes nothing, and the next try is some time away
    keeper = place.opened()
    keeper.queue.join("t")
    fill(keeper.queue, 5)
    mended = failing(keeper, SpoolUnavailable("disk I/O error"), "write")
    assert not keeper.save(PATIENCE)
    mended()
    tidy, asked = keeper.archive.tidy, threading.Event()

    def tidied(*args: Any, **options: Any) -> float | None:
        if options.get("full") and not asked.is_set():
            asked.set()
            keeper._retry_at = None  # as `save` in another thread does
            keeper.save_soon()
        return tidy(*args, **options)

    monkeypatch.setattr(keeper.archive, "tidy", tidied)

    # When
    turn(keeper)

    # Then
    assert asked.wait(PATIENCE)
    turn(keeper)
    assert keeper.trouble is None
    assert keeper.save(PATIENCE)
    assert "the keeper failed" not in caplog.text


def test_a_save_that_comes_late_is_counted(place: Place) -> None:
    keeper = place.opened(loss_window=2)
    keeper.queue.join("t")
    fill(keeper.queue, 1)
    place.clock.seconds += 1
    assert keeper.save(PATIENCE)
    assert keeper.archive.late == 0
    fill(keeper.queue, 1)
    place.clock.seconds += 3
    assert keeper.save(PATIENCE)
    assert keeper.archive.late == 1


def test_at_max_disk_the_oldest_rows_go_or_nothing_more_is_taken(place: Place) -> None:
    place.max_disk = 512 << 10
    for policy in ("drop_oldest", "drop_newest"):
        keeper = place.opened(on_full=policy)
        cursor = keeper.queue.join("t")
        saved = []
        for at in range(100):
            keeper.queue.append(random.Random(at).randbytes(10_000))
            saved.append(keeper.save(PATIENCE))
            assert disk_bytes(place.folder) <= place.max_disk
            place.clock.seconds += 100
        if policy == "drop_oldest":
            assert all(saved)
            assert cursor.dropped["overflow"] + cursor.pending(keeper.queue.following) == 100
        else:
            assert not saved[-1]
            assert keeper.trouble == "max_disk or min_free_disk is reached"
            assert not keeper.call(lambda: keeper.write_row(key_of(1 << 30, 1), bytes(600_000)))  # noqa: B023 - runs now
        assert keeper.stop(PATIENCE)


def test_large_records_are_written_at_once(place: Place) -> None:
    keeper = place.opened()
    keeper.queue.join("t")
    offset = keeper.queue.reserve(1)
    block = Block(offset, 1, keeper.queue.ring.run, -1, -1, 0.0, 0.0)
    assert keeper.save_large(block, frame(bytes(50_000), offset))
    keeper.queue.placed(offset, done=True)
    keeper.stop(PATIENCE)
    assert key_of(offset, 1) in place.rows()


def test_a_large_record_that_the_disk_does_not_take(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = place.opened()
    failing(keeper, SpoolUnavailable("full"), "open")
    block = Block(0, 1, keeper.queue.ring.run, -1, -1, 0.0, 0.0)
    assert not keeper.save_large(block, frame(b"x", 0))
    assert keeper.trouble == "full"


def test_damage_while_running_is_mended_from_memory(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    # Given rows of which some are in memory still, and a database that is overwritten
    keeper = place.opened(batch_records=5)
    cursor = keeper.queue.join("t")
    fill(keeper.queue, 5, 5000)
    assert keeper.save(PATIENCE)
    keeper.queue.empty_ring()
    fill(keeper.queue, 5, 5000)
    assert keeper.save(PATIENCE)
    keeper.call(lambda: keeper._spool._cache._sql("DROP TABLE Cache"))
    # When it is used
    fill(keeper.queue, 5, 5000)
    keeper.save(PATIENCE)
    place.clock.seconds += 10
    assert keeper.save(PATIENCE)
    # Then a fresh one holds all that could be had, the rest is counted, and the old one is kept
    assert cursor.dropped == {"corrupt": 5}
    assert (cursor.pending(15), keeper.queue.first_unsaved()) == (10, 15)
    assert list(place.folder.glob("damaged-1.db"))
    assert "5 records could not be read" in caplog.text
    keeper.stop(PATIENCE)
    assert sum(unpack(row).count for key, row in place.rows().items() if key >= 0) == 10


def test_a_damaged_database_at_the_start(place: Place) -> None:
    first = place.opened()
    first.queue.join("t")
    fill(first.queue, 20)
    assert first.save(PATIENCE)
    first.stop(PATIENCE)
    with sqlite3.connect(place.folder / "cache.db") as connection:
        connection.execute("INSERT INTO Settings VALUES ('transact', 1)")
    connection.close()
    place.ring.unlink()
    again = place.opened()
    cursor = again.queue.join("t")
    assert (cursor.pending(20), cursor.dropped, again.trouble) == (20, {}, None)


def test_a_disk_that_does_not_open_at_the_start(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first = place.opened()
    first.queue.join("t")
    fill(first.queue, 20)
    assert first.save(PATIENCE)
    first.stop(PATIENCE)
    place.ring.unlink()
    # Given a disk that passes away for a while
    with monkeypatch.context() as broken:

        def fails(self: Spool) -> None:
            raise SpoolUnavailable("unable to open database file")

        broken.setattr(Spool, "open", fails)
        blind = place.opened()
        cursor = blind.queue.join("t")
        new = fill(blind.queue, 3)
        assert (blind.trouble, blind.queue.following > 1 << 41) == ("unable to open database file", True)
        assert not blind.call(lambda: blind.write_row(1, b"x"))
    # When it is back, then the backlog is part of the queue, before what came meanwhile
    place.clock.seconds += 10
    assert blind.save(PATIENCE)
    assert cursor.pending(blind.queue.following) == 20 + len(new)
    assert cursor.accepted(blind.queue.following) == 23
    turn(blind)
    assert place.told.disk[-1] is None


def test_a_disk_that_does_not_open_after_a_kill(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a killed program that left records on disk only, and behind them others in memory
    first = place.opened(batch_records=5)
    first.queue.join("t")
    fill(first.queue, 20, 1000)
    assert first.save(PATIENCE)
    first.queue.empty_ring()
    fill(first.queue, 5, 1000)
    first.queue.seal()
    first.stop(PATIENCE)
    # When the disk does not open at the start, then what is in memory is delivered
    with monkeypatch.context() as broken:

        def fails(self: Spool) -> None:
            raise SpoolUnavailable("unable to open database file")

        broken.setattr(Spool, "open", fails)
        blind = place.opened(batch_records=5)
        cursor = blind.queue.join("t")
        fill(blind.queue, 1, 1000)
        blind.queue.seal()
        taken = blind.queue.take(cursor, IntervalSet(), 500, "fifo", 0)
        assert taken is not None
        assert taken.start == 20
        blind.queue.settle(cursor, taken.start, taken.stop, DELIVERED)
        assert blind.queue.take(cursor, IntervalSet(), 500, "fifo", 0) is None
    # And nothing on disk is given up meanwhile: it is there when the disk is
    place.clock.seconds += 10
    blind.save_soon()
    turn(blind)
    assert (cursor.dropped, cursor.pending(26)) == ({}, 26 - (taken.stop - taken.start))
    read = threading.Event()
    blind.queue.wake = read.set
    taken = blind.queue.take(cursor, IntervalSet(), 500, "fifo", 0)
    while taken is None:
        assert read.wait(PATIENCE)
        read.clear()
        taken = blind.queue.take(cursor, IntervalSet(), 500, "fifo", 0)
    assert taken.start == 0


def test_a_damaged_row_is_kept_in_quarantine(place: Place) -> None:
    first = place.opened()
    first.queue.join("t")
    fill(first.queue, 5)
    assert first.save(PATIENCE)
    (key,) = {block.key for block in first.queue.stock.blocks}
    assert key is not None
    first.call(lambda: first._spool.write({key: b"garbage"}))
    first.queue.empty_ring()
    woken = threading.Event()
    first.queue.wake = woken.set
    first.queue.stock.want(key)
    assert woken.wait(PATIENCE)
    assert (place.folder / "quarantine" / f"{key}.block").read_bytes() == b"garbage"
    assert first.queue.cursors["t"].dropped == {"corrupt": 5}


def test_dead_letters_are_settled_once_they_are_on_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = place.opened(max_dead=2)
    cursor = keeper.queue.join("t")
    fill(keeper.queue, 4)
    keeper.queue.seal()
    mended = failing(keeper, SpoolUnavailable("no"), "open")
    for at in range(4):
        keeper.bury([letter(at)], functools.partial(settle_dead, keeper.queue, cursor, at))
    turn(keeper)
    assert cursor.dead == 0
    mended()
    place.clock.seconds += 100
    keeper.save_soon()
    turn(keeper)
    assert (cursor.dead, cursor.dropped, cursor.pending(4)) == (2, {"dead_overflow": 2}, 0)
    assert [one.offset for one in keeper.call(lambda: list(keeper.letters))] == [2, 3]
    assert place.told.drops == [("t", 1, "dead_overflow")] * 2


def test_no_dead_letters_at_all(place: Place) -> None:
    keeper = place.opened(max_dead=0)
    cursor = keeper.queue.join("t")
    fill(keeper.queue, 1)
    keeper.queue.seal()
    keeper.bury([letter(0)], functools.partial(settle_dead, keeper.queue, cursor, 0))
    turn(keeper)
    assert (cursor.dead, cursor.dropped) == (0, {"dead_overflow": 1})


def test_calls_bring_back_what_they_return_or_raise(place: Place) -> None:
    keeper = place.opened()
    assert keeper.call(lambda: keeper.call(lambda: threading.current_thread().name)) == "test-keeper"
    with pytest.raises(SpoolDamaged, match="x"):
        keeper.call(lambda: (_ for _ in ()).throw(SpoolDamaged("x")))
    assert keeper.stop(PATIENCE)
    with pytest.raises(SpoolUnavailable, match="closed"):
        keeper.call(lambda: None)


def test_a_disk_that_does_not_answer(place: Place) -> None:
    keeper = place.opened(Clock())
    release = threading.Event()
    with pytest.raises(SpoolUnavailable, match="no answer"):
        keeper.call(lambda: release.wait(PATIENCE), 0.01)
    assert not keeper.stop(0.01)
    release.set()
    assert keeper.stop(PATIENCE)


def test_a_slip_of_ours_does_not_end_the_thread(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    keeper = place.opened()
    keeper.queue.join("t")
    fill(keeper.queue, 1)
    undo = failing(keeper, ZeroDivisionError("a slip"), "open")
    keeper.save_soon()
    while "the keeper failed" not in caplog.text:
        turn(keeper)
    undo()
    assert keeper.save(PATIENCE)


def test_memory_that_is_short_is_passed_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = place.opened()
    monkeypatch.setattr(keeper._guard, "look", lambda: setattr(keeper._guard, "memory_low", True))
    place.clock.seconds += 11
    turn(keeper)
    assert keeper.queue.pressed


def test_closing_a_database_that_fails_is_logged(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    keeper = place.opened()
    undo = failing(keeper, SpoolUnavailable("gone"), "close")
    assert keeper.stop(PATIENCE)
    assert "closing the queue's database" in caplog.text
    undo()
    keeper._spool.close()


def test_a_large_database_set_aside_does_not_cost_the_rows(place: Place) -> None:
    # Given a damaged database that was set aside, as large as max_disk
    place.max_disk = 1 << 20
    (place.folder / "damaged-1.db").write_bytes(bytes(2 << 20))
    keeper = place.opened()
    cursor = keeper.queue.join("t")
    for _ in range(5):
        fill(keeper.queue, 5)
        keeper.save(PATIENCE)
        place.clock.seconds += 100
    assert cursor.dropped == {}
    assert keeper.trouble is None


# -- a rescue that is interrupted ------------------------------------------------------------------------------------


def with_backlog(place: Place) -> Keeper:
    """Ten records on disk only, five on disk and in memory, two dead letters."""
    keeper = place.opened(batch_records=5)
    cursor = keeper.queue.join("t")
    for _ in range(2):
        fill(keeper.queue, 5, 5000)
        assert keeper.save(PATIENCE)
    keeper.queue.empty_ring()
    fill(keeper.queue, 5, 5000)
    assert keeper.save(PATIENCE)
    for at in range(2):
        keeper.bury([letter(at)], functools.partial(settle_dead, keeper.queue, cursor, at))
    turn(keeper)
    place.clock.seconds += 10
    keeper.tidy_soon()
    turn(keeper)
    assert (cursor.dead, cursor.pending(15)) == (2, 13)
    return keeper


def break_database(keeper: Keeper) -> None:
    """SQLite finds a setting that is not ours: all rows are readable, and the database is not used any more."""
    if keeper.thread.is_alive():
        keeper.call(keeper._spool.close)
    with closing(sqlite3.connect(keeper._spool.directory / "cache.db")) as connection:
        connection.execute("INSERT INTO Settings VALUES ('transact', 1)")
        connection.commit()


def fresh_one_fails(patch: pytest.MonkeyPatch) -> None:
    """From now on no new database can be made; one that is there is opened."""
    real = Spool.open

    def fails(self: Spool) -> None:
        if not (self.directory / "cache.db").exists():
            raise SpoolUnavailable("unable to open database file")
        real(self)

    patch.setattr(Spool, "open", fails)


def test_what_was_set_aside_is_salvaged_once_a_fresh_database_can_be_made(place: Place) -> None:
    keeper = with_backlog(place)
    cursor = keeper.queue.cursors["t"]
    # Given a damaged database, in the place of which no other can be made just now
    break_database(keeper)
    with pytest.MonkeyPatch.context() as broken:
        fresh_one_fails(broken)
        fill(keeper.queue, 1)
        assert not keeper.save(PATIENCE)
        assert [one.name for one in waiting_for_rescue(place.folder)] == ["salvage-1.db"]
        # When somebody wants a record of it, a letter, or room for a large record
        keeper.queue.stock.want(keeper.queue.stock.index[0])
        turn(keeper)
        with pytest.raises(SpoolUnavailable, match="not open"):
            keeper.call(lambda: list(keeper.letters))
        assert not keeper.call(lambda: keeper.write_row(key_of(16, 1), b"x"))
    # Then nothing is given up, and all of it is there when the disk is
    place.clock.seconds += 100
    assert keeper.save(PATIENCE)
    assert (cursor.dropped, cursor.dead, cursor.pending(16)) == ({}, 2, 14)
    assert [one.offset for one in keeper.call(lambda: list(keeper.letters))] == [0, 1]
    assert waiting_for_rescue(place.folder) == []
    assert (place.folder / "damaged-1.db").exists()
    keeper.stop(PATIENCE)
    # All but the rows of the two that are letters
    assert sum(unpack(row).count for key, row in place.rows().items() if key >= 0) == 14


@pytest.mark.parametrize("reboot", [False, True])
def test_what_was_set_aside_is_salvaged_at_the_next_start(place: Place, reboot: bool) -> None:
    keeper = with_backlog(place)
    break_database(keeper)
    with pytest.MonkeyPatch.context() as broken:
        fresh_one_fails(broken)
        fill(keeper.queue, 1)
        assert not keeper.save(PATIENCE)
        keeper.stop(PATIENCE)
    if reboot:
        place.ring.unlink()
    again = place.opened(batch_records=5)
    cursor = again.queue.join("t")
    again.count_letters()
    # Then only what never was on disk is gone, and only with the memory
    assert cursor.pending(again.queue.following) == (13 if reboot else 14)
    assert (cursor.dropped, cursor.dead) == ({}, 2)
    assert waiting_for_rescue(place.folder) == []


def test_damage_found_at_a_start_at_which_no_fresh_database_can_be_made(place: Place) -> None:
    keeper = with_backlog(place)
    keeper.stop(PATIENCE)
    break_database(keeper)
    place.ring.unlink()
    with pytest.MonkeyPatch.context() as broken:
        fresh_one_fails(broken)
        again = place.opened(batch_records=5)
        cursor = again.queue.join("t")
        # Given records that are accepted before the disk can be read
        fill(again.queue, 1)
        assert not again.save(PATIENCE)
    place.clock.seconds += 100
    assert again.save(PATIENCE)
    turn(again)
    # Then they do not take the places of those that wait there
    assert (cursor.dropped, cursor.pending(again.queue.following), again.trouble) == ({}, 14, None)


def test_a_rescue_killed_in_its_middle_is_done_again(place: Place) -> None:
    keeper = with_backlog(place)
    keeper.stop(PATIENCE)
    break_database(keeper)
    # Given a rescue of which one row was written when it was killed
    spool = Spool(place.folder, place.max_disk)
    rescue = Rescue(spool)
    rescue.begin(SpoolDamaged("for this test"))
    spool.open()
    (aside,) = waiting_for_rescue(place.folder)
    spool.write(dict([next(iter(rows(aside)))]))
    spool.close()
    again = place.opened(batch_records=5)
    cursor = again.queue.join("t")
    again.count_letters()
    assert (cursor.dropped, cursor.dead, cursor.pending(15)) == ({}, 2, 13)
    assert waiting_for_rescue(place.folder) == []


@pytest.mark.parametrize("restart", [False, True])
def test_rows_and_letters_that_cannot_be_salvaged_are_counted(place: Place, restart: bool) -> None:
    keeper = with_backlog(place)
    # Given that two rows and the letters are gone, as well as what made it a database of ours
    keeper.call(lambda: keeper._spool._cache._sql("DELETE FROM Cache WHERE key BETWEEN 0 AND ?", (key_of(9, 9),)))
    keeper.call(lambda: keeper._spool._cache._sql("DELETE FROM Cache WHERE key <= -1000"))
    if restart:
        keeper.stop(PATIENCE)
    break_database(keeper)
    if restart:
        keeper = place.opened(batch_records=5)
        keeper.queue.join("t")
        keeper.count_letters()
    else:
        fill(keeper.queue, 1)
        keeper.save(PATIENCE)
    cursor = keeper.queue.cursors["t"]
    assert (cursor.dropped, cursor.dead) == ({"corrupt": 10}, 0)
    following = keeper.queue.following
    assert cursor.pending(following) == following - 10
    assert cursor.accepted(following) == following


def test_a_database_set_aside_that_cannot_be_opened_just_now_is_tried_again(place: Place) -> None:
    keeper = with_backlog(place)
    keeper.stop(PATIENCE)
    break_database(keeper)
    rescue = Rescue(Spool(place.folder, place.max_disk))
    rescue.begin(SpoolDamaged("for this test"))
    (aside,) = waiting_for_rescue(place.folder)
    hidden = aside.rename(place.folder / "hidden")
    aside.mkdir()  # which SQLite cannot open
    again = place.opened(batch_records=5)
    cursor = again.queue.join("t")
    assert again.trouble is not None
    aside.rmdir()
    hidden.rename(aside)
    place.clock.seconds += 100
    again.save_soon()
    turn(again)
    assert (cursor.dropped, cursor.pending(15)) == ({}, 13)
    assert place.told.disk[-1] is None
