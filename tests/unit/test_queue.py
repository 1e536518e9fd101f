from __future__ import annotations

import threading
from array import array
from pathlib import Path

import pytest

from resilient_exporters.delivery import intake as module
from resilient_exporters.delivery.block import Payload, pack, unpack
from resilient_exporters.delivery.cursor import DEAD, DELIVERED, EXCLUDED
from resilient_exporters.delivery.frame import HEAD_SIZE, Frame, frame
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.queue import Queue, QueueState, Taken
from resilient_exporters.delivery.recovery import attach, decode_state, take_over
from resilient_exporters.delivery.ring import Ring
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.spool import key_of, span_of
from resilient_exporters.delivery.stock import SAVING
from resilient_exporters.errors import ClosedError, QueueFullError
from tests.queues import SMALL, StillClock, make_queue, reopened, waiting
from tests.targets import PATIENCE

NONE = IntervalSet()


def fill(queue: Queue, count: int, size: int = 20) -> list[bytes]:
    payloads = [b"%09d." % (queue.following + at) + bytes(size - 10) for at in range(count)]
    for payload in payloads:
        queue.append(payload)
    return payloads


def save(queue: Queue, most: int = 1 << 30) -> dict[int, bytes]:
    """What the keeper does: one transaction."""
    queue.seal()
    gathered = queue.gather(most, queue.following)
    rows = {
        key_of(block.first, block.count): pack(block, queue.ring.memory[start:stop]) for block, start, stop in gathered
    }
    queue.saved([block for block, _, _ in gathered], done=True)
    return rows


def take(queue: Queue, identity: str = "t", most: int = 1000, order: str = "fifo", fresh: int = 0) -> Taken | None:
    return queue.take(queue.cursors[identity], NONE, most, order, fresh)


# -- accepting -----------------------------------------------------------------------------------------------------


def test_records_get_offsets_that_only_grow_and_come_back_as_they_were() -> None:
    queue = make_queue()
    cursor = queue.join("t")
    payloads = fill(queue, 30)
    assert waiting(queue, cursor) == dict(enumerate(payloads))
    assert (queue.following, queue.sealed, queue.open_count) == (30, 30, 0)


def test_what_the_open_block_holds_is_not_taken_before_it_is_sealed() -> None:
    queue = make_queue()
    queue.join("t")
    fill(queue, 3)
    assert take(queue) is None
    assert queue.open_count == 3
    queue.seal()
    taken = take(queue)
    assert taken is not None
    assert (taken.start, taken.stop) == (0, 3)


def test_a_block_is_sealed_by_count_and_by_bytes() -> None:
    queue = make_queue(batch_records=10)
    queue.join("t")
    fill(queue, 25)
    assert [block.count for block in queue.stock.blocks] == [10, 10]
    queue = make_queue(batch_bytes=200)
    queue.join("t")
    fill(queue, 25)
    assert all(block.size <= 200 for block in queue.stock.blocks)


def test_small_sealed_pieces_become_one_block_while_they_are_not_saved() -> None:
    queue = make_queue(batch_records=10)
    queue.join("t")
    for _ in range(12):
        fill(queue, 1)
        queue.seal()
    assert [block.count for block in queue.stock.blocks] == [10, 2]
    queue.stock.blocks[-1].key = SAVING
    fill(queue, 1)
    queue.seal()
    assert [block.count for block in queue.stock.blocks] == [10, 2, 1]


def test_memory_stays_within_its_bound_and_the_oldest_are_dropped_and_counted() -> None:
    queue = make_queue()
    cursor = queue.join("t")
    told: list[tuple[int, int, str]] = []
    queue.on_drop = lambda start, stop, reason: told.append((start, stop, reason))
    for _ in range(5000):
        fill(queue, 1, 100)
        assert queue.memory_bytes() <= queue.ring.capacity
    kept = waiting(queue, cursor)
    assert max(kept) == 4999
    assert list(kept) == list(range(min(kept), 5000))
    assert cursor.dropped == {"overflow": min(kept)}
    assert sum(stop - start for start, stop, _ in told) == min(kept)
    assert cursor.accepted(5000) == 5000 == cursor.dropped["overflow"] + cursor.pending(5000)


@pytest.mark.parametrize("size", [SMALL // 4, SMALL // 8, SMALL // 8 + 1, SMALL // 5])
def test_large_records_in_the_ring(size: int) -> None:
    queue = make_queue()
    cursor = queue.join("t")
    for _ in range(50):
        fill(queue, 1, size)
        assert queue.memory_bytes() <= queue.ring.capacity
    kept = waiting(queue, cursor)
    assert max(kept) == 49
    assert len(kept) >= 2


def test_a_record_larger_than_a_quarter_of_the_ring_is_not_for_it() -> None:
    queue = make_queue()
    with pytest.raises(QueueFullError, match="larger than a quarter"):
        queue.append(bytes(SMALL // 4 + 1))
    seen: list[tuple[int, int]] = []

    def large(payload: bytes, flags: int) -> int:
        seen.append((len(payload), flags))
        return 7

    queue.large = large
    assert queue.append(bytes(SMALL // 4 + 1), 3) == 7
    assert seen == [(SMALL // 4 + 1, 3)]


def test_drop_newest_counts_what_it_turns_away() -> None:
    queue = make_queue(on_full="drop_newest", max_records=5)
    cursor = queue.join("t")
    gone = queue.join("gone")
    gone.left = 0
    offsets = [queue.append(b"x") for _ in range(8)]
    assert offsets == [0, 1, 2, 3, 4, -1, -1, -1]
    assert (cursor.dropped, cursor.accepted(5), cursor.pending(5)) == ({"overflow": 3}, 8, 5)
    assert gone.dropped == {}


def test_raise_says_how_many_wait() -> None:
    queue = make_queue(on_full="raise", max_records=3)
    queue.join("t")
    fill(queue, 3)
    with pytest.raises(QueueFullError, match="3 records wait"):
        queue.append(b"x")
    # Given a settled record, there is room for one
    queue.settle(queue.cursors["t"], 0, 1, DELIVERED)
    assert queue.append(b"x") == 3
    with pytest.raises(QueueFullError):
        queue.append(b"x")


def test_drop_oldest_at_max_records_drops_a_tenth() -> None:
    queue = make_queue(max_records=100)
    cursor = queue.join("t")
    fill(queue, 101)
    assert cursor.dropped == {"overflow": 10}
    assert cursor.pending(queue.following) == 91


def test_block_gives_up_after_its_time() -> None:
    clock = StillClock()
    queue = make_queue(clock=clock, on_full="block", full_timeout=5, max_records=1)
    queue.join("t")
    queue.append(b"x")

    class Door(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            clock.seconds += timeout
            return False

    queue._door = Door(queue.lock)
    with pytest.raises(QueueFullError, match="waited 5 s"):
        queue.append(b"y")


def test_block_waits_until_there_is_room() -> None:
    queue = make_queue(on_full="block", max_records=1)
    cursor = queue.join("t")
    queue.append(b"x")
    waits = threading.Event()

    class Door(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    queue._door = Door(queue.lock)
    results: list[int] = []
    sender = threading.Thread(target=lambda: results.append(queue.append(b"y")))
    sender.start()
    assert waits.wait(PATIENCE)
    queue.settle(cursor, 0, 1, DELIVERED)
    sender.join(PATIENCE)
    assert results == [1]


def test_a_closed_door_takes_no_more_and_wakes_who_waits_before_it() -> None:
    queue = make_queue()
    queue.join("t")
    fill(queue, 2)
    queue.close_door()
    assert queue.open_count == 0
    with pytest.raises(ClosedError):
        queue.append(b"x")
    assert len(waiting(queue, queue.cursors["t"])) == 2


def test_a_signal_handler_that_sends_in_the_middle_of_a_send(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a handler that runs just before a frame is put together, on the fast path and on the slow one
    queue = make_queue(batch_records=3)
    cursor = queue.join("t")
    real = module._PACK
    handled: list[bytes] = []

    def interrupted(*head: int) -> bytes:
        if len(handled) % 2 == 0:
            handled.append(b"handler %d" % len(handled))
            queue.append(handled[-1])
            handled.append(b"")
        return real(*head)

    queue.append(b"first")
    monkeypatch.setattr(module, "_PACK", interrupted)
    queue.append(b"second")
    monkeypatch.undo()
    # Then both records are there
    assert sorted(waiting(queue, cursor).values()) == sorted([b"first", b"second", b"handler 0"])


def test_a_signal_handler_that_sends_in_the_middle_of_a_slow_send(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = make_queue(batch_records=1)
    cursor = queue.join("t")
    queue.append(b"first")
    once = [True]

    def interrupted(payload: bytes, offset: int, flags: int = 0) -> bytes:
        if once.pop():
            once.append(False)
            queue.append(b"handler")
        once.append(False)
        return frame(payload, offset, flags)

    monkeypatch.setattr(module, "frame", interrupted)
    queue.append(b"second")
    assert sorted(waiting(queue, cursor).values()) == [b"first", b"handler", b"second"]


def test_under_pressure_a_quarter_of_memory_is_used() -> None:
    queue = make_queue(batch_records=10)
    queue.join("t")
    queue.pressed = True
    for _ in range(40):
        fill(queue, 20, 50)
        save(queue)
    fill(queue, 20, 50)
    assert queue.memory_bytes() <= queue.ring.capacity // 4 + queue._block_bytes


# -- taking --------------------------------------------------------------------------------------------------------


def test_orders_of_taking() -> None:
    queue = make_queue(batch_records=10)
    cursor = queue.join("t")
    fill(queue, 40)
    queue.seal()

    def spans(order: str, fresh: int = 0, most: int = 7) -> list[tuple[int, int]]:
        claimed, found = IntervalSet(), []
        while (taken := queue.take(cursor, claimed, most, order, fresh)) is not None:
            claimed.add(taken.start, taken.stop)
            found.append((taken.start, taken.stop))
        return found

    assert spans("fifo") == [(0, 7), (7, 14), (14, 21), (21, 28), (28, 35), (35, 40)]
    assert spans("newest_first") == [(33, 40), (26, 33), (19, 26), (12, 19), (5, 12), (0, 5)]
    assert spans("balanced", fresh=30) == [(30, 37), (37, 40), (0, 7), (7, 14), (14, 21), (21, 28), (28, 30)]


def test_what_is_left_between_settled_records_is_one_batch() -> None:
    # Given a target that has taken every other one of ten records, then ten, and then every third
    queue = make_queue(batch_records=10)
    cursor = queue.join("t")
    fill(queue, 40)
    queue.seal()
    for start, stop in [
        *((at, at + 1) for at in range(1, 10, 2)),
        (10, 20),
        *((at, at + 1) for at in range(22, 40, 3)),
    ]:
        queue.settle(cursor, start, stop, DELIVERED)

    # When batches are taken, one of whose records somebody else works on
    claimed = IntervalSet([(4, 5)])
    found: list[list[int]] = []
    while (taken := queue.take(cursor, claimed, 7, "fifo", 0)) is not None:
        assert taken.records == sum(stop - start for start, stop in taken.runs)
        for run in taken.runs:
            claimed.add(*run)
        found.append([at for run in taken.runs for at in range(*run)])

    # Then they have what is left, in order, and over no more than a batch of settled ones at a time
    assert found == [[0, 2, 6, 8], [20, 21, 23, 24, 26, 27, 29], [30, 32, 33, 35, 36, 38, 39]]


def test_a_batch_is_bounded_by_bytes() -> None:
    queue = make_queue(batch_bytes=1000)
    queue.join("t")
    fill(queue, 100, 100)
    queue.seal()
    taken = take(queue)
    assert taken is not None
    assert sum(len(piece.data) for piece in taken.pieces) <= 1000


def test_a_row_that_was_not_read_yet_is_asked_for() -> None:
    # Given records that are only on disk
    queue = make_queue()
    queue.join("t")
    asked: list[str] = []
    queue.stock.load_soon = lambda: asked.append("keeper")
    payloads = fill(queue, 10)
    rows = save(queue)
    assert queue.empty_ring()
    # When they are wanted
    assert take(queue) is None
    # Then the keeper is rung, and once it answered they are there
    assert asked == ["keeper"]
    (key,) = queue.stock.wanted
    queue.put_loaded(key, unpack(rows[key]))
    taken = take(queue)
    assert taken is not None
    assert taken.pieces[0].plain == payloads
    assert waiting(queue, queue.cursors["t"]) == dict(enumerate(payloads))


def test_what_is_not_whole_in_a_row_is_corrupt_and_does_not_stop_the_rest() -> None:
    queue = make_queue()
    cursor = queue.join("t")
    fill(queue, 5)
    (row,) = save(queue).values()
    queue.empty_ring()
    whole = unpack(row)
    damaged = Payload(whole.run, whole.origin, 5, [whole.frames[0], *whole.frames[3:]], whole.data, 0, 0)
    queue.put_loaded(key_of(0, 5), damaged)
    assert cursor.dropped == {"corrupt": 2}
    assert list(waiting(queue, cursor)) == [0, 3, 4]
    # and a row of which nothing is left
    queue.put_loaded(key_of(0, 5), None)
    assert cursor.dropped == {"corrupt": 5}
    assert (cursor.pending(5), list(queue.stock.index), list(queue.stock.freed)) == (0, [], [key_of(0, 5)])


def test_offsets_that_are_nowhere_are_corrupt() -> None:
    queue = make_queue()
    cursor = queue.join("t")
    queue.start_at(queue.ring.base, 10)
    fill(queue, 2)
    queue.seal()
    taken = take(queue)
    assert taken is not None
    assert (taken.start, cursor.dropped) == (10, {"corrupt": 10})


def test_a_hole_before_a_record_on_its_way_to_disk_does_not_take_it_along() -> None:
    # Given offsets that are nowhere, and right behind them a large record that is just being saved
    queue = make_queue()
    cursor = queue.join("t")
    queue.start_at(queue.ring.base, 10)
    assert queue.reserve(1) == 10
    # When a target looks for work meanwhile
    assert take(queue) is None
    queue.placed(10, done=True)
    # Then it gets the record once it is there
    assert (cursor.dropped, list(queue.stock.index)) == ({"corrupt": 10}, [key_of(10, 1)])


# -- settling ------------------------------------------------------------------------------------------------------


def test_a_block_is_freed_when_everyone_has_settled_it() -> None:
    queue = make_queue(batch_records=10)
    one, two = queue.join("one"), queue.join("two")
    fill(queue, 30)
    queue.seal()
    queue.settle(one, 0, 30, DELIVERED)
    assert len(queue.stock.blocks) == 3
    # out of order as well
    queue.settle(two, 10, 20, DEAD)
    assert [block.first for block in queue.stock.blocks] == [0, 20]
    queue.settle(two, 0, 10, "age")
    assert [block.first for block in queue.stock.blocks] == [20]
    assert queue.low() == 20
    assert queue.settle(two, 0, 20, DELIVERED) == 0


def test_settled_rows_are_superfluous() -> None:
    queue = make_queue(batch_records=10)
    cursor = queue.join("t")
    fill(queue, 30)
    save(queue)
    queue.settle(cursor, 10, 20, DELIVERED)
    assert queue.stock.freed == [key_of(10, 10)]
    queue.empty_ring()
    queue.settle(cursor, 20, 30, DELIVERED)
    queue.settle(cursor, 0, 10, DELIVERED)
    assert sorted(queue.stock.freed) == [key_of(0, 10), key_of(10, 10), key_of(20, 10)]
    assert queue.stock.index == array("q")


def test_a_target_that_joins_starts_here_and_one_that_left_is_not_served() -> None:
    queue = make_queue()
    queue.join("one")
    fill(queue, 5)
    two = queue.join("two")
    assert two.joined == 5
    queue.leave("one")
    fill(queue, 5)
    queue.seal()
    one = queue.cursors["one"]
    assert (one.accepted(10), one.pending(10)) == (5, 5)
    queue.settle(two, 5, 10, DELIVERED)
    assert len(waiting(queue, two)) == 0
    # When it is there again, then it goes on where it stood, without what came meanwhile
    assert queue.join("one") is one
    assert set(waiting(queue, one)) == {0, 1, 2, 3, 4}
    assert (one.accepted(10), one.excluded) == (5, 5)


def test_one_that_left_with_nothing_waiting_is_forgotten() -> None:
    queue = make_queue()
    queue.join("one")
    queue.leave("one")
    assert queue.cursors == {}
    # but its dead letters keep it
    two = queue.join("two")
    fill(queue, 1)
    queue.seal()
    queue.settle(two, 0, 1, DEAD)
    queue.leave("two")
    assert list(queue.cursors) == ["two"]


def test_dropping_for_a_target_that_left_counts_only_its_own() -> None:
    queue = make_queue()
    queue.join("one")
    fill(queue, 5)
    queue.leave("one")
    queue.join("two")
    fill(queue, 5)
    queue.drop(0, 10, "age")
    assert queue.cursors["one"].dropped == {"age": 5}
    assert queue.cursors["two"].dropped == {"age": 5}
    assert queue.stock.blocks == [] or queue.open_count == 5


# -- what the keeper does ------------------------------------------------------------------------------------------


def test_gathered_blocks_are_saved_once() -> None:
    queue = make_queue(batch_records=10)
    queue.join("t")
    fill(queue, 30, 400)
    queue.seal()
    first = queue.gather(1, 30)
    assert [block.first for block, _, _ in first] == [0]
    second = queue.gather(1 << 20, 25)
    assert [block.first for block, _, _ in second] == [10, 20]
    assert queue.gather(1 << 20, 30) == []
    assert queue.first_unsaved() == 0
    queue.saved([block for block, _, _ in first], done=True)
    assert queue.first_unsaved() == 10
    # When the disk did not take the others, then they are gathered again
    queue.saved([block for block, _, _ in second], done=False)
    assert [block.first for block, _, _ in queue.gather(1 << 20, 30)] == [10, 20]


def test_a_small_row_is_rewritten_with_what_came_after_it() -> None:
    queue = make_queue()
    cursor = queue.join("t")
    fill(queue, 2)
    save(queue)
    fill(queue, 3)
    queue.seal()
    ((block, _, _),) = queue.gather(1 << 20, 5)
    assert (block.first, block.count, block.replaces) == (0, 5, [key_of(0, 2)])
    # When it is settled before it is saved, then both rows are superfluous
    queue.settle(cursor, 0, 5, DELIVERED)
    queue.saved([block], done=True)
    assert sorted(queue.stock.freed) == [key_of(0, 2), key_of(0, 5)]


def test_a_block_settled_while_it_was_being_saved_is_not_kept() -> None:
    queue = make_queue()
    cursor = queue.join("t")
    fill(queue, 2)
    queue.seal()
    gathered = queue.gather(1 << 20, 2)
    queue.settle(cursor, 0, 2, DELIVERED)
    queue.saved([gathered[0][0]], done=False)
    assert (queue.stock.freed, queue.stock.blocks) == ([], [])


def test_the_oldest_row_goes_first() -> None:
    queue = make_queue(batch_records=10)
    cursor = queue.join("t")
    assert queue.drop_oldest_row() == 0
    fill(queue, 30)
    assert queue.drop_oldest_row() == 0
    save(queue)
    assert queue.drop_oldest_row() == 10
    queue.empty_ring()
    assert queue.drop_oldest_row() == 10
    assert (cursor.dropped, cursor.pending(30)) == ({"overflow": 20}, 10)


def test_more_than_half_full_of_what_is_not_on_disk_asks_for_a_save() -> None:
    queue = make_queue()
    queue.join("t")
    asked: list[int] = []
    queue.save_soon = lambda: asked.append(queue.memory_bytes())
    while not asked and queue.following < 5000:
        fill(queue, 10, 100)
    assert asked[0] > SMALL // 2


def test_ages_follow_the_queue_clock() -> None:
    clock = StillClock()
    queue = make_queue(clock=clock, batch_records=10)
    cursor = queue.join("t")
    assert (queue.expire(60), queue.oldest_age(), queue.oldest_unsaved()) == (None, 0.0, None)
    began = queue.clock.now()
    fill(queue, 1)
    clock.seconds += 5
    assert (queue.oldest_age(), queue.oldest_unsaved()) == (5, began)
    fill(queue, 9)
    queue.seal()
    assert queue.oldest_age() == 5
    clock.seconds += 50
    fill(queue, 10)
    # A block goes when its last record is too old
    assert queue.expire(60) == 10
    clock.seconds += 10
    assert queue.expire(60) == 50
    assert (cursor.dropped, queue.oldest_age()) == ({"age": 10}, 10)
    # The same for what is only on disk: its row is read first
    rows = save(queue)
    queue.empty_ring()
    assert queue.expire(60) is None
    (key,) = queue.stock.wanted
    queue.put_loaded(key, unpack(rows[key]))
    assert (queue.expire(60), queue.oldest_age()) == (50, 10)
    clock.seconds += 50
    assert queue.expire(60) is None
    assert (cursor.dropped, cursor.pending(20), queue.oldest_age()) == ({"age": 20}, 0, 0.0)


def test_ages_of_what_is_in_memory_before_a_young_row() -> None:
    # Given an old record in memory, and a large one behind it that is on disk since now
    clock = StillClock()
    queue = make_queue(clock=clock)
    cursor = queue.join("t")
    fill(queue, 1)
    queue.seal()
    clock.seconds += 100
    offset = queue.reserve(1)
    queue.placed(offset, done=True)
    now = queue.clock.now()
    queue.put_loaded(key_of(1, 1), Payload(b"", 1, 1, [Frame(1, 0, 0, 0)], b"", now, now))
    # Then the old one is the oldest, and expires
    assert queue.oldest_age() == 100
    queue.expire(60)
    assert cursor.dropped == {"age": 1}


# -- reserved offsets ----------------------------------------------------------------------------------------------


def test_a_large_record_is_waited_for_in_its_place() -> None:
    queue = make_queue()
    cursor = queue.join("t")
    fill(queue, 2)
    offset = queue.reserve(1)
    fill(queue, 1)
    queue.seal()
    taken = take(queue)
    assert taken is not None
    # Given the large one on its way, what comes before it is delivered, and then it is waited for
    assert (taken.start, taken.stop, offset) == (0, 2, 2)
    queue.settle(cursor, 0, 2, DELIVERED)
    assert take(queue) is None
    queue.placed(offset, done=True)
    assert queue.stock.index == array("q", [key_of(2, 1)])
    assert cursor.pending(queue.following) == 2


def test_a_large_record_that_the_disk_does_not_take_was_never_accepted() -> None:
    queue = make_queue()
    cursor = queue.join("t")
    offset = queue.reserve(1)
    queue.placed(offset, done=False)
    fill(queue, 1)
    assert (cursor.accepted(2), list(waiting(queue, cursor))) == (1, [1])


def test_reserving_stops_at_the_bounds() -> None:
    queue = make_queue(on_full="raise", max_records=3)
    cursor = queue.join("t")
    with pytest.raises(QueueFullError):
        queue.reserve(5)
    assert (cursor.accepted(queue.following), bool(queue.limbo)) == (0, False)
    # but what was accepted before is taken
    first = queue.reserve(5, again=True)
    queue.placed(first, 5, done=True)
    assert cursor.accepted(queue.following) == 5


def test_reserving_more_than_there_is_room_for_drops_them_all() -> None:
    queue = make_queue(on_full="drop_newest", max_records=3)
    queue.join("t")
    assert queue.reserve(5) == -1


def test_dead_letters_come_back_whatever_the_bounds() -> None:
    queue = make_queue(on_full="raise", max_records=2)
    queue.join("t")
    fill(queue, 2)
    assert queue.append_again(b"letter", 0) == 2
    # but not where there is no room in memory at all
    queue = make_queue(on_full="raise")
    queue.join("t")
    with pytest.raises(QueueFullError):
        fill(queue, 10_000, 100)
    with pytest.raises(QueueFullError, match="no room in memory"):
        queue.append_again(bytes(SMALL // 4 - 8), 0)


# -- restarts ------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.ring"


def test_a_killed_program_loses_nothing_and_keeps_ids_and_counters(path: Path) -> None:
    # Given records delivered, dead, dropped, in flight, sealed and not sealed
    queue = make_queue(path, batch_records=10)
    cursor = queue.join("t")
    payloads = fill(queue, 25)
    queue.settle(cursor, 0, 4, DELIVERED)
    queue.settle(cursor, 6, 8, DEAD)
    queue.drop(9, 10, "age")
    cursor.retries = 3
    queue.settle(cursor, 4, 5, DELIVERED)
    # When the process is killed
    again = reopened(queue)
    found = again.join("t")
    # Then all of it is as it was
    assert again.ring.run == queue.ring.run
    assert again.following == 25
    assert waiting(again, found) == {at: payloads[at] for at in (5, 8, *range(10, 25))}
    assert (found.delivered, found.dead, found.dropped, found.retries) == (5, 2, {"age": 1}, 3)
    assert found.accepted(25) == 25
    # and ids go on
    assert again.append(b"next") == 25


def test_a_clean_end_keeps_counters_and_ids_in_a_cut_file(path: Path) -> None:
    queue = make_queue(path)
    cursor = queue.join("t")
    fill(queue, 25)
    queue.seal()
    queue.settle(cursor, 0, 25, DELIVERED)
    assert queue.empty_ring()
    queue.ring.close(keep=False)
    again = make_queue(path, capacity=2 * SMALL)
    found = again.join("t")
    assert (found.delivered, again.following, again.ring.run) == (25, 25, queue.ring.run)
    assert again.ring.capacity == 2 * SMALL
    payloads = fill(again, 3000, 30)
    assert waiting(again, found)[3024] == payloads[-1]
    # and a smaller one after that, though the place to go on from lies behind its end
    again.settle(found, 0, again.following, DELIVERED)
    assert again.empty_ring()
    again.ring.close(keep=False)
    small = make_queue(path, capacity=SMALL)
    assert (small.ring.capacity, small.append(b"x"), small.memory_bytes() < 100) == (SMALL, 3025, True)
    assert waiting(small, small.join("t")) == {3025: b"x"}


def test_a_reboot_takes_the_ring_and_gives_new_ids(path: Path) -> None:
    queue = make_queue(path)
    queue.join("t")
    fill(queue, 5)
    path.unlink()
    again = make_queue(path)
    assert again.ring.run != queue.ring.run
    assert again.following == 0


@pytest.mark.parametrize("count", range(1, 60))
def test_killed_at_every_fill_of_a_ring_that_goes_round(count: int, path: Path) -> None:
    # Given large records, so that every alignment of the end comes up, and a target that lags behind
    queue = make_queue(path, batch_records=3)
    cursor = queue.join("t")
    sent: dict[int, bytes] = {}
    for number in range(count):
        (sent[number],) = fill(queue, 1, 1400 + 37 * (number * count % 41))
        queue.settle(cursor, 0, max(0, number - 20), DELIVERED)
    # When it is killed
    again = reopened(queue, batch_records=3)
    # Then the rest is there, and the ring goes on
    found = again.join("t")
    rest = {at: sent[at] for at in range(max(0, count - 21), count)}
    assert waiting(again, found) == rest
    assert again.memory_bytes() <= queue.memory_bytes()
    for _ in range(10):
        rest[again.following - 1] = fill(again, 1, 500)[0]
    assert waiting(again, found) == rest
    assert found.dropped == {}
    assert waiting(reopened(again), found) == rest


def test_killed_in_the_middle_of_an_append_at_every_byte(path: Path) -> None:
    # Given a ring on its second lap, with whole old frames everywhere
    queue = make_queue(path)
    cursor = queue.join("t")
    for _ in range(40):
        fill(queue, 50, 32)
        queue.settle(cursor, 0, queue.following - 100, DELIVERED)
    start = queue._mark[0]
    before = queue.ring.memory[start : start + 60]
    offset = queue.following
    expected = waiting(queue, cursor)
    queue.append(b"the record that was being written")
    size = HEAD_SIZE + 33
    after = queue.ring.memory[start : start + size]
    for cut in range(size + 1):
        queue.ring.memory[start : start + 60] = before
        queue.ring.memory[start : start + cut] = after[:cut]
        again = reopened(queue)
        found = waiting(again, again.join("t"))
        # Then it is there whole or not at all, and all before it is
        assert found == (expected if cut < size else {**expected, offset: after[HEAD_SIZE:]}), cut
        again.ring.close(keep=True)


def test_memory_size_changes_only_when_nothing_waits(path: Path) -> None:
    queue = make_queue(path)
    queue.join("t")
    payloads = fill(queue, 100)
    again = make_queue(path, capacity=4 * SMALL)
    assert again.ring.capacity == SMALL
    assert waiting(again, again.join("t")) == dict(enumerate(payloads))


def test_a_ring_whose_states_are_gone_starts_over_under_new_ids(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Given a ring of which both states of the queue are destroyed, but those of a target stand
    queue = make_queue(path)
    cursor = queue.join("t")
    fill(queue, 20)
    queue.seal()
    for at in range(20):
        queue.settle(cursor, at, at + 1, DELIVERED)
    queue.ring.memory[4096 : 4096 + 2048] = bytes(2048)
    # When it is opened
    again = reopened(queue)
    # Then it is said, and nothing old can be mistaken for new: neither ids, nor frames, nor cursors
    assert "starts empty" in caplog.text
    assert again.ring.run != queue.ring.run
    assert again.following == 0
    found = again.join("t")
    again.append(b"%09d." % 0 + bytes(10))
    third = reopened(again)
    assert third.following == 1
    assert (third.join("t").delivered, third.join("t").pending(1), found.delivered) == (0, 1, 0)


@pytest.mark.parametrize("upper", [1, 3])
def test_damage_to_the_whole_end_of_the_ring(upper: int, path: Path) -> None:
    # Given blocks round the end of the ring, and noise over all that lies before the end
    queue = make_queue(path, batch_records=4)
    cursor = queue.join("t")
    size = 3000
    sent: list[bytes] = []
    while not queue._wrapped:
        sent += fill(queue, 1, size)
        queue.settle(cursor, 0, max(0, queue.following - 15), DELIVERED)
    sent += fill(queue, 3, size)
    queue.seal()
    before_end = [block for block in queue.stock.blocks if block.start > queue._mark[0]]
    head = before_end[-upper]
    queue.settle(cursor, 0, head.first, DELIVERED)
    assert queue._wrapped
    queue.ring.memory[head.start : queue.ring.end] = b"\xa5" * (queue.ring.end - head.start)
    # When it is opened
    again = reopened(queue)
    found = again.join("t")
    # Then what lies at the beginning is there, the rest is counted, and the ring goes on without losing more
    rest = {at: sent[at] for at in range(before_end[-1].end, len(sent))}
    lost = before_end[-1].end - head.first
    assert waiting(again, found) == rest
    assert found.dropped == {"corrupt": lost}
    for _ in range(5):
        rest[again.following - 1] = fill(again, 1, size)[0]
    assert waiting(again, found) == rest
    assert found.dropped == {"corrupt": lost}
    assert again.memory_bytes() <= again.ring.capacity


def test_every_flipped_bit_of_the_header_loses_nothing(path: Path) -> None:
    # Given a queue with a backlog round the end of the ring
    queue = make_queue(path, batch_records=10)
    cursor = queue.join("t")
    for _ in range(60):
        fill(queue, 25, 40)
        queue.settle(cursor, 0, max(0, queue.following - 400), DELIVERED)
    queue.settle(cursor, queue.following - 50, queue.following - 40, DELIVERED)
    queue.seal()
    # (An answer of the target is written twice before the head moves, as it is in practice.)
    expected = waiting(queue, cursor)
    used = [at for at in range(4096, 4096 + 4096) if queue.ring.memory[at : at + 1] != b"\0"]
    good = queue.ring.memory[:]
    queue.ring.close(keep=True)
    for at in used:
        path.write_bytes(good)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([good[at] ^ 0x10]))
        again = make_queue(path, batch_records=10)
        # When any byte of the states is altered, then every record is there; some may be delivered twice
        assert waiting(again, again.join("t")).items() >= expected.items(), at
        assert again.following == queue.following
        again.ring.close(keep=True)


def test_more_targets_than_slots_survive_a_kill(path: Path) -> None:
    # Given a pool of 40 targets, none of which is reached
    queue = make_queue(path)
    for number in range(40):
        queue.join(f"target {number}")
    fill(queue, 10)
    queue.settle(queue.cursors["target 3"], 0, 10, DELIVERED)
    # When the program is killed before anything was on disk
    again = reopened(queue)
    # Then each target still gets its records
    for number in range(40):
        assert again.join(f"target {number}").pending(10) == (0 if number == 3 else 10), number


def test_more_ranges_than_a_slot_holds_survive_a_kill(path: Path) -> None:
    # Given a target that delivered every other block of many, the oldest not at all
    queue = make_queue(path, batch_records=1)
    cursor = queue.join("t")
    fill(queue, 300)
    queue.seal()
    for at in range(1, 300, 2):
        queue.settle(cursor, at, at + 1, DELIVERED)
    # When the program is killed
    found = reopened(queue, batch_records=1).join("t")
    # Then nothing is lost; what the slot had no room for is delivered again
    assert {at for a, b in found.open(0, 300) for at in range(a, b)} >= set(range(0, 300, 2))
    assert (found.dropped, found.accepted(300)) == ({}, found.delivered + found.pending(300))


def test_more_ranges_than_a_slot_holds_of_rows_on_disk_survive_a_kill(path: Path) -> None:
    # Given the same with rows on disk, those that were delivered deleted
    queue = make_queue(path, batch_records=1)
    cursor = queue.join("t")
    rows: dict[int, bytes] = {}
    for _ in range(300):
        fill(queue, 1, 1000)
        rows |= save(queue)
        queue.empty_ring()
    for at in range(1, 300, 2):
        queue.settle(cursor, at, at + 1, DELIVERED)
    state = decode_state(queue.state())
    left = {key: row for key, row in rows.items() if key not in queue.stock.freed}
    assert len(left) == 150
    # When the program is killed
    again = make_queue_on(path, left, state)
    found = again.join("t")
    # Then what is left is delivered, and nothing that was delivered is called corrupt
    while found.pending(300):
        taken = take(again)
        if taken is None:
            for key in list(again.stock.wanted):
                again.put_loaded(key, unpack(left[key]))
        else:
            again.settle(found, taken.start, taken.stop, DELIVERED)
    assert (found.dropped, found.delivered) == ({}, 300)


def test_what_is_lost_is_not_hidden_among_more_ranges_than_a_slot_holds(path: Path) -> None:
    # Given 150 ranges of which a slot holds 40, half of them counted as dropped, and two rows that somebody deleted
    queue = make_queue(path, batch_records=1)
    cursor = queue.join("t")
    rows: dict[int, bytes] = {}
    for _ in range(300):
        fill(queue, 1, 1000)
        rows |= save(queue)
        queue.empty_ring()
    for at in range(1, 300, 2):
        queue.settle(cursor, at, at + 1, DELIVERED if at % 4 == 1 else "full")
    left = {key: row for key, row in rows.items() if key not in queue.stock.freed and span_of(key)[0] not in (4, 200)}
    # When the program is killed
    again = make_queue_on(path, left, decode_state(queue.state()))
    found = again.join("t")
    # Then all that was settled is, and the two are missed
    assert found.pending(300) == 150
    assert (found.dropped, found.delivered, found.accepted(300)) == ({"full": 75}, 75, 300)
    while found.pending(300):
        taken = take(again)
        if taken is None:
            for key in list(again.stock.wanted):
                again.put_loaded(key, unpack(left[key]))
        else:
            again.settle(found, taken.start, taken.stop, DELIVERED)
    assert (found.dropped, found.delivered) == ({"full": 75, "corrupt": 2}, 223)


def test_a_target_without_a_place_in_the_ring_keeps_what_it_settled_since_the_last_save(path: Path) -> None:
    # Given a target whose name is too long for a slot, which therefore is kept on disk only
    queue = make_queue(path)
    name = "/".join(["folder"] * 200)
    cursor = queue.join(name)
    fill(queue, 5)
    rows = save(queue)
    state = decode_state(queue.state())
    # When it took all that was saved and more that was not, and the program is killed
    fill(queue, 5)
    queue.seal()
    queue.settle(cursor, 0, 10, DELIVERED)
    fill(queue, 2)
    again = make_queue_on(path, rows, state)
    found = again.join(name)
    # Then what was on disk comes again, what is nowhere was delivered, and nothing is called corrupt
    assert (found.dropped, found.delivered, found.pending(12)) == ({}, 5, 7)


def make_queue_on(path: Path, rows: dict[int, bytes], state: QueueState | None) -> Queue:
    """As the engine opens a queue whose disk holds these rows."""
    queue = Queue(Settings.check(max_memory=SMALL, batch_records=1), Ring(path, SMALL, Path("/queue")), StillClock())
    take_over(queue)
    attach(queue, array("q", sorted(rows)), state)
    queue.settle_in()
    return queue


def test_a_target_with_a_very_long_name_survives_a_kill(path: Path) -> None:
    queue = make_queue(path)
    name = "/".join(["folder"] * 120)
    queue.join(name)
    fill(queue, 3)
    assert reopened(queue).join(name).pending(3) == 3


def test_a_target_with_a_name_longer_than_a_slot_survives_a_kill(path: Path) -> None:
    queue = make_queue(path)
    queue.join("x" * 1100)
    fill(queue, 3)
    assert reopened(queue).join("x" * 1100).pending(3) == 3


def test_a_name_that_leaves_room_for_few_ranges_keeps_none_of_them(path: Path) -> None:
    queue = make_queue(path, batch_records=1)
    name = "x" * 960
    cursor = queue.join(name)
    fill(queue, 40)
    for at in range(1, 40, 2):
        queue.settle(cursor, at, at + 1, DELIVERED)
    found = reopened(queue, batch_records=1).cursors[name]
    assert (found.floor, list(found.ranges)) == (0, [])


def test_excluded_records_stay_excluded_over_a_restart(path: Path) -> None:
    queue = make_queue(path)
    cursor = queue.join("t")
    fill(queue, 4)
    queue.settle(cursor, 0, 2, EXCLUDED)
    found = reopened(queue).join("t")
    assert (found.accepted(4), found.pending(4), found.delivered) == (2, 2, 0)
