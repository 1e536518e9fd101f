from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters.delivery.cursor import DEAD, DELIVERED, EXCLUDED, Cursor

HOW = [DELIVERED, DEAD, EXCLUDED, "overflow", "age"]


def conserved(cursor: Cursor, following: int) -> bool:
    counted = cursor.delivered + cursor.dead + sum(cursor.dropped.values()) + cursor.pending(following)
    return cursor.accepted(following) == counted and cursor.delivered >= 0


def test_everything_below_the_floor_is_settled_and_counted_once() -> None:
    # Given a target that joined at record 10
    cursor = Cursor("t", 10)
    # When it settles out of order, and some twice
    assert cursor.settle(12, 15, DELIVERED) == 3
    assert cursor.settle(11, 14, DEAD) == 1
    assert (cursor.floor, list(cursor.ranges)) == (10, [(11, 15)])
    assert cursor.settle(0, 11, "age") == 1
    # Then the floor has moved over all of it
    assert (cursor.floor, list(cursor.ranges)) == (15, [])
    assert (cursor.delivered, cursor.dead, cursor.dropped, cursor.pending(20)) == (3, 1, {"age": 1}, 5)
    assert cursor.accepted(20) == 10
    assert cursor.settle(3, 15, DELIVERED) == cursor.settle(15, 15, DELIVERED) == 0


def test_open_and_settled_agree() -> None:
    cursor = Cursor("t", 0)
    cursor.settle(2, 4, DELIVERED)
    cursor.settle(6, 7, DELIVERED)
    assert list(cursor.open(0, 10)) == [(0, 2), (4, 6), (7, 10)]
    assert cursor.settled(2, 4)
    assert not cursor.settled(2, 5)
    assert cursor.settled(5, 5)
    # A target that left has no business behind that
    cursor.left = 4
    assert not cursor.settled(0, 10)
    cursor.settle(0, 4, DELIVERED)
    assert cursor.settled(0, 10)


def test_a_record_turned_away_is_accepted_and_dropped() -> None:
    cursor = Cursor("t", 0)
    cursor.dirty = False
    cursor.refuse("overflow")
    assert (cursor.accepted(0), cursor.dropped, cursor.pending(0), cursor.dirty) == (1, {"overflow": 1}, 0, True)


def test_dead_letters_are_counted_anew() -> None:
    cursor = Cursor("t", 0)
    cursor.settle(0, 5, DEAD)
    cursor.move_dead(2, "discarded")
    cursor.move_dead(1, EXCLUDED)
    assert (cursor.dead, cursor.dropped, cursor.accepted(5)) == (2, {"discarded": 2}, 4)
    assert conserved(cursor, 5)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from(HOW)), max_size=40), st.integers(0, 9)
)
def test_conservation_and_the_way_through_bytes(steps: list[tuple[int, int, str]], joined: int) -> None:
    cursor, following = Cursor("target", joined), 80
    model: dict[int, str] = {}
    for start, length, how in steps:
        fresh = [at for at in range(max(start, joined), start + length) if at not in model]
        model |= dict.fromkeys(fresh, how)
        assert cursor.settle(start, start + length, how) == len(fresh)
        assert conserved(cursor, following)
    assert cursor.delivered == sum(how == DELIVERED for how in model.values())
    assert {at for a, b in cursor.open(0, following) for at in range(a, b)} == set(range(joined, following)) - set(
        model
    )
    # When it is kept whole, then it comes back the same
    again = Cursor.restore(cursor.state())
    for name in ("identity", "joined", "floor", "excluded", "delivered", "dead", "retries", "dropped", "left"):
        assert getattr(again, name) == getattr(cursor, name)
    assert list(again.ranges) == list(cursor.ranges)
    # When only some ranges were kept, then more is open than was, nothing less, and the counters still add up
    for most in range(5):
        short = Cursor.restore(cursor.state(most))
        assert conserved(short, following)
        for at in range(joined, following):
            assert cursor.settled(at, at + 1) or not short.settled(at, at + 1)
        for at in range(joined, following):
            short.settle(at, at + 1, DELIVERED)
        assert conserved(short, following)


def test_more_ranges_than_a_slot_holds_with_most_of_them_dead() -> None:
    # Given every other of 400 records refused
    cursor = Cursor("t", 0)
    for at in range(0, 400, 2):
        cursor.settle(at + 1, at + 2, DEAD)
    # When a kill leaves the forty lowest ranges
    again = Cursor.restore(cursor.state(40))
    # Then the rest is open again, and counted as accepted again: nothing is lost without a counter
    assert again.pending(400) == 360
    assert again.dead == 200
    assert conserved(again, 400)


@pytest.mark.parametrize(
    "kept", [b"", b"\xc1", b"text", msgspec.msgpack.encode([1, 2, 3]), msgspec.msgpack.encode({"a": 1})]
)
def test_bytes_of_something_else_are_no_cursor(kept: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        Cursor.restore(kept)


def test_history_found_late_is_put_in_front() -> None:
    # Given a cursor that began blind, far up, because the disk could not be read
    kept, blind = Cursor("t", 0), Cursor("t", 1000)
    kept.settle(0, 3, DELIVERED)
    kept.settle(5, 6, DEAD)
    kept.retries = 2
    kept.dropped = {"age": 0}
    blind.settle(1000, 1002, DELIVERED)
    blind.settle(1005, 1006, "age")
    # When the disk is read, with ten records
    blind.merge(kept, 10)
    # Then both histories are one, and what lies between was never anyone's
    assert list(blind.open(0, 1010)) == [(3, 5), (6, 10), (1002, 1005), (1006, 1010)]
    assert (blind.joined, blind.delivered, blind.dead, blind.retries, blind.dropped) == (0, 5, 1, 2, {"age": 1})
    assert blind.accepted(1010) == 20
    assert conserved(blind, 1010)


def test_history_found_late_of_a_target_that_was_away() -> None:
    # Given a target that was found gone at record 4 of 10, and is there again
    kept, blind = Cursor("t", 0), Cursor("t", 1000)
    kept.left = 4
    blind.merge(kept, 10)
    # Then what was accepted while it was away is not its business
    assert list(blind.open(0, 1000)) == [(0, 4)]
    assert blind.left is None
    assert blind.accepted(1002) == 6
    assert conserved(blind, 1002)


def test_a_blind_cursor_that_settled_nothing_yet() -> None:
    kept, blind = Cursor("t", 0), Cursor("t", 1000)
    kept.settle(0, 10, DELIVERED)
    blind.merge(kept, 10)
    assert (blind.floor, list(blind.ranges), blind.pending(1005)) == (1000, [], 5)
    assert conserved(blind, 1005)


def test_what_came_after_a_target_left_is_not_its_business() -> None:
    cursor = Cursor("t", 0)
    cursor.left = 3
    assert cursor.settle(2, 10, EXCLUDED) == 1
    assert cursor.settle(5, 10, "age") == 0
    assert (cursor.pending(10), cursor.accepted(10), cursor.dropped) == (2, 2, {})
