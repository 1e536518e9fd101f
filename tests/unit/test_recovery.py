from __future__ import annotations

from array import array
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from resilient_exporters.delivery.block import Block, pack, unpack
from resilient_exporters.delivery.cursor import DELIVERED
from resilient_exporters.delivery.frame import HEAD_SIZE, frame
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.recovery import attach, begin_blind, decode_state, take_over
from resilient_exporters.delivery.ring import Ring
from resilient_exporters.delivery.sealed import seal
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.spool import key_of, span_of
from resilient_exporters.errors import InvalidConfigError
from tests.queues import SMALL, StillClock, make_queue, reopened, waiting


class Disk:
    """The rows that a kill or a power cut leaves, and the state row with them."""

    def __init__(self) -> None:
        self.rows: dict[int, bytes] = {}
        self.state: bytes | None = None

    def save(self, queue: Queue) -> None:
        queue.seal()
        gathered = queue.gather(1 << 30, queue.following)
        for block, start, stop in gathered:
            self.rows[key_of(block.first, block.count)] = pack(block, queue.ring.memory[start:stop])
            for key in block.replaces:
                del self.rows[key]
        queue.saved([block for block, _, _ in gathered], done=True)
        self.tidy(queue)

    def tidy(self, queue: Queue) -> None:
        for key in queue.stock.freed:
            self.rows.pop(key, None)
        queue.stock.freed.clear()
        self.state = queue.state()

    def opened(self, path: Path | None, clock: StillClock | None = None, **options: Any) -> Queue:
        queue = Queue(
            Settings.check(max_memory=SMALL, **options), Ring(path, SMALL, Path("/queue")), clock or StillClock()
        )
        take_over(queue)
        attach(queue, array("q", sorted(self.rows)), decode_state(self.state))
        queue.settle_in()
        return queue

    def all_of(self, queue: Queue, identity: str) -> dict[int, bytes]:
        """Everything a target still gets, rows loaded as they are asked for."""
        cursor = queue.join(identity)
        found: dict[int, bytes] = {}
        while True:
            part = waiting(queue, cursor)
            found |= part
            for at in part:
                queue.settle(cursor, at, at + 1, DELIVERED)
            if not queue.stock.wanted:
                return found
            for key in list(queue.stock.wanted):
                queue.put_loaded(key, unpack(self.rows[key]) if key in self.rows else None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.ring"


def fill(queue: Queue, count: int, size: int = 40) -> dict[int, bytes]:
    found = {}
    for _ in range(count):
        payload = b"%09d." % queue.following + bytes(size - 10)
        found[queue.append(payload)] = payload
    return found


def test_killed_with_rows_and_memory(path: Path) -> None:
    # Given rows of one to three records, all still in memory, and more that is not on disk
    queue, disk = make_queue(path), Disk()
    queue.join("t")
    sent: dict[int, bytes] = {}
    for count in (3, 1, 2):
        sent |= fill(queue, count, 2000)
        disk.save(queue)
    sent |= fill(queue, 2, 2000)
    # When it is killed
    again = disk.opened(path)
    # Then what is on disk is not kept in memory twice, and nothing is missing
    assert disk.all_of(again, "t") == sent
    assert again.cursors["t"].dropped == {}


def test_rows_within_a_block_that_memory_cut_anew(path: Path) -> None:
    # Given small rows on disk whose records are in memory too, followed by some that are not on disk:
    # at the start the memory is cut into blocks anew, and one lies across the end of the last row
    queue, disk = make_queue(path, batch_records=2), Disk()
    queue.join("t")
    sent: dict[int, bytes] = {}
    for _ in range(3):
        sent |= fill(queue, 2, 1500)
        disk.save(queue)
    sent |= fill(queue, 1, 1500)
    assert len(disk.rows) == 3
    again = disk.opened(path)
    # When that block is saved and leaves memory
    disk.save(again)
    again.empty_ring()
    # Then each record is found in one row only, and all are there
    spans = sorted(map(span_of, disk.rows))
    assert all(stop <= start for (_, stop), (start, _) in pairwise(spans)), spans
    assert disk.all_of(again, "t") == sent
    assert again.cursors["t"].dropped == {}


def test_a_row_that_begins_before_the_memory(path: Path) -> None:
    # Given a row of which the memory holds the second half only (as another size of blocks may cut it)
    queue, disk = make_queue(path), Disk()
    queue.join("t")
    sent = fill(queue, 6, 3000)
    disk.save(queue)
    sent |= fill(queue, 2, 3000)
    queue.seal()
    queue.stock.blocks[0].first += 3
    queue.stock.blocks[0].count -= 3
    queue.stock.blocks[0].start += 3 * (3000 + HEAD_SIZE)
    queue.keep_ring()
    again = disk.opened(path)
    disk.save(again)
    again.empty_ring()
    assert disk.all_of(again, "t") == sent


def test_a_power_cut_leaves_the_rows_and_their_cursors(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = StillClock()
    queue, disk = make_queue(path, clock), Disk()
    cursor = queue.join("t")
    sent = fill(queue, 20)
    disk.save(queue)
    fill(queue, 5)
    queue.settle(cursor, 0, 4, DELIVERED)
    clock.seconds += 10
    disk.tidy(queue)
    then = queue.clock.now()
    path.unlink()
    # When the machine is up again
    again = disk.opened(path, StillClock(3.0, "boot-2"))
    # Then the queue's clock goes on, and so do offsets, under another run
    assert again.clock.now() == then + 3
    assert again.ring.run != queue.ring.run
    assert again.following == 20
    assert disk.all_of(again, "t") == {at: sent[at] for at in range(4, 20)}
    assert again.cursors["t"].delivered == 20


def test_what_a_power_cut_took_before_a_row_is_counted(path: Path) -> None:
    # Given records in memory only, and behind them a large one that was saved at once
    queue, disk = make_queue(path), Disk()
    queue.join("t")
    fill(queue, 3)
    offset = queue.reserve(1)
    disk.rows[key_of(offset, 1)] = pack(Block(offset, 1, queue.ring.run, -1, -1, 0, 0), frame(b"large", offset))
    queue.placed(offset, done=True)
    disk.tidy(queue)
    path.unlink()
    again = disk.opened(path)
    assert disk.all_of(again, "t") == {3: b"large"}
    cursor = again.cursors["t"]
    assert (cursor.dropped, cursor.delivered, cursor.accepted(again.following)) == ({"corrupt": 3}, 1, 4)


def test_cursors_without_a_slot_come_from_the_disk(path: Path) -> None:
    queue, disk = make_queue(path), Disk()
    for number in range(40):
        queue.join(f"target {number}")
    fill(queue, 10)
    queue.settle(queue.cursors["target 39"], 0, 4, DELIVERED)
    disk.save(queue)
    again = disk.opened(path)
    assert again.join("target 39").pending(10) == 6
    assert again.join("target 38").pending(10) == 10


def test_damage_in_memory_that_the_disk_makes_good(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Given twenty records, of which ten are on disk too, and damage to two of each
    queue, disk = make_queue(path, batch_records=10), Disk()
    cursor = queue.join("t")
    sent = fill(queue, 10)
    disk.save(queue)
    sent |= fill(queue, 10)
    queue.seal()
    for at in (4, 5, 13, 17):
        place = queue.ring.base + at * 48 + 20
        queue.ring.memory[place : place + 1] = b"\xff"
    again = disk.opened(path)
    # Then only what is nowhere is lost, and counted
    assert disk.all_of(again, "t") == {at: sent[at] for at in range(20) if at not in (13, 17)}
    assert again.cursors["t"].dropped == {"corrupt": 2}
    assert "memory was damaged" in caplog.text
    assert cursor.dropped == {}


def test_a_large_record_in_limbo_at_a_kill_was_never_promised(path: Path) -> None:
    # Given a record that send() had not returned from
    queue = make_queue(path)
    queue.join("t")
    sent = fill(queue, 2)
    queue.reserve(1)
    sent |= fill(queue, 1)
    again = reopened(queue)
    cursor = again.join("t")
    assert waiting(again, cursor) == sent
    assert cursor.accepted(4) == 4
    assert cursor.dropped == {"corrupt": 1}


# -- a disk that is not readable at the start ------------------------------------------------------------------------


def test_blind_then_the_disk_is_there_again(path: Path) -> None:
    # Given a backlog of two targets on disk, a reboot, and a disk that does not open
    queue, disk = make_queue(path), Disk()
    queue.join("t")
    queue.join("gone")
    old = fill(queue, 10)
    disk.save(queue)
    path.unlink()
    blind = Queue(Settings.check(max_memory=SMALL), Ring(path, SMALL, Path("/queue")), StillClock())
    take_over(blind)
    begin_blind(blind)
    blind.settle_in()
    cursor = blind.join("t")
    new = fill(blind, 5)
    assert min(new) > 1 << 41
    # When it opens later
    attach(blind, array("q", sorted(disk.rows)), decode_state(disk.state), late=True)
    # Then the old records come first, and what is between them is nobody's
    assert list(disk.all_of(blind, "t")) == [*old, *new]
    assert (cursor.delivered, cursor.accepted(blind.following)) == (15, 15)
    # and a target that is not there keeps its backlog, but gets nothing new
    gone = blind.cursors["gone"]
    assert (gone.pending(blind.following), gone.accepted(blind.following)) == (10, 10)
    assert set(disk.all_of(blind, "gone")) == set(old)


def test_blind_keeps_to_the_offsets_that_memory_has(path: Path) -> None:
    queue = make_queue(path)
    queue.join("t")
    fill(queue, 3)
    again = reopened(queue)
    begin_blind(again)
    assert again.following == 3


def test_blind_with_memory_that_has_accepted_nothing_makes_no_backlog(path: Path) -> None:
    # Found by the model: the cursor stood at 0, and the queue went on at 2 ** 41
    queue = make_queue(path)
    queue.join("t")
    again = reopened(queue)
    begin_blind(again)
    assert again.cursors["t"].pending(again.following) == 0


def test_blind_with_memory_that_survived(path: Path) -> None:
    # Given memory and disk, and a disk that opens late
    queue, disk = make_queue(path), Disk()
    queue.join("t")
    sent = fill(queue, 5)
    disk.save(queue)
    sent |= fill(queue, 5)
    again = reopened(queue)
    again.join("t")
    attach(again, array("q", sorted(disk.rows)), decode_state(disk.state), late=True)
    assert disk.all_of(again, "t") == sent


def test_a_second_blind_start_below_the_first_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a backlog on disk, and two reboots after which the disk came late; the second began at lower offsets
    bases = iter([1 << 37, 1 << 36])
    monkeypatch.setattr("secrets.randbits", lambda _: next(bases))
    queue, disk = make_queue(path), Disk()
    queue.join("t")
    wanted = list(fill(queue, 3).values())
    disk.save(queue)
    for _ in range(2):
        path.unlink()
        queue = Queue(Settings.check(max_memory=SMALL), Ring(path, SMALL, Path("/queue")), StillClock())
        take_over(queue)
        begin_blind(queue)
        queue.settle_in()
        cursor = queue.join("t")
        new = fill(queue, 4)
        queue.settle(cursor, min(new), min(new) + 1, DELIVERED)
        wanted += list(new.values())[1:]
        # When
        attach(queue, array("q", sorted(disk.rows)), decode_state(disk.state), late=True)
        disk.save(queue)

    # Then: nothing is lost, nothing overtakes, and all is counted
    cursor = queue.cursors["t"]
    assert (cursor.accepted(queue.following), cursor.delivered, cursor.pending(queue.following)) == (11, 2, 9)
    assert list(disk.all_of(queue, "t").values()) == wanted
    # also after a kill
    again = disk.opened(path)
    assert again.cursors["t"].accepted(again.following) == 11


def test_memory_older_than_the_disk(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Given a ring with a backlog, which then was out of reach while the program ran on with the disk alone
    queue, disk = make_queue(path), Disk()
    cursor = queue.join("t")
    queue.join("gone")
    old = fill(queue, 3)
    queue.settle(cursor, 0, 1, DELIVERED)
    queue.seal()
    without = disk.opened(None)
    without.join("t")
    sent = fill(without, 5)
    disk.save(without)
    # When both are there
    again = disk.opened(path)
    # Then nothing has the offset of another record, and everything is delivered
    assert "older than the disk" in caplog.text
    assert again.ring.run not in (queue.ring.run, without.ring.run)
    found = disk.all_of(again, "t")
    assert found == {**sent, 5: old[0], 6: old[1], 7: old[2]}
    assert (again.following, again.cursors["t"].accepted(8)) == (8, 8)
    # also after another kill
    fill(again, 2)
    third = disk.opened(path)
    assert len(disk.all_of(third, "t")) == 2


# -- states that cannot be read --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [b"", b"junk", *(seal([part]) for part in (b"\xc1", msgspec.msgpack.encode({"a": 1}), b"\x92\x01\xa2\xe1x"))],
)
def test_a_state_that_is_none_costs_duplicates_only(row: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert decode_state(row) is None
    assert "delivered again" in caplog.text
    assert decode_state(None) is None


def test_a_state_of_a_newer_version_is_not_touched() -> None:
    with pytest.raises(InvalidConfigError, match="newer version"):
        decode_state(seal([msgspec.msgpack.encode([99, "whatever"])]))


def test_rows_without_a_state_are_for_whoever_joins(path: Path) -> None:
    # Given rows, but neither memory nor cursors
    queue, disk = make_queue(path), Disk()
    queue.join("t")
    fill(queue, 5)
    disk.save(queue)
    path.unlink()
    disk.state = None
    again = disk.opened(path)
    assert again.following == 5
    assert len(disk.all_of(again, "t")) == 5


def test_a_cursor_that_cannot_be_read_does_not_take_the_others_along(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue, disk = make_queue(path), Disk()
    queue.join("one")
    queue.join("two")
    fill(queue, 3)
    disk.save(queue)
    kept = decode_state(disk.state)
    assert kept is not None
    kept.cursors[0] = b"junk"
    again = Queue(Settings.check(max_memory=SMALL), Ring(None, SMALL, Path("/queue")), StillClock())
    attach(again, array("q", sorted(disk.rows)), kept)
    assert list(again.cursors) == ["two"]
    assert "cannot be read" in caplog.text
    # and in the ring
    queue.ring.write_slot(1, b"junk")
    assert list(reopened(queue).cursors) == ["two"]


def test_a_ring_state_that_points_outside_is_not_followed(path: Path) -> None:
    queue = make_queue(path)
    queue.join("t")
    fill(queue, 3)
    queue.seal()
    kept = msgspec.msgpack.decode(queue.ring.read_slot(0) or b"")
    queue.ring.write_slot(0, msgspec.msgpack.encode([10**9, *kept[1:]]))
    again = reopened(queue)
    assert again.following >= 3
    assert again.append(b"x") >= 3
