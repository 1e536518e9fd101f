from __future__ import annotations

from array import array

from resilient_exporters.delivery.block import Block, Payload
from resilient_exporters.delivery.spool import key_of
from resilient_exporters.delivery.stock import SAVING, Stock


def block(first: int, count: int, key: int | None = None) -> Block:
    made = Block(first, count, b"run", first * 10, (first + count) * 10, 0.0, 0.0)
    made.key = key
    return made


def payload(born: float = 0.0, last: float = 0.0) -> Payload:
    return Payload(b"run", 0, 1, [], b"", born, last)


def stock(blocks: list[tuple[int, int]] = [], rows: list[tuple[int, int]] = []) -> Stock:  # noqa: B006 - never changed
    made = Stock()
    made.blocks = [block(first, count) for first, count in blocks]
    made.index = array("q", [key_of(first, count) for first, count in rows])
    return made


def test_offsets_are_found_in_blocks_and_rows() -> None:
    held = stock(blocks=[(10, 5), (20, 5)], rows=[(0, 4), (6, 2)])
    assert [at for at in range(30) if held.block_at(at)] == [*range(10, 15), *range(20, 25)]
    assert {at: held.key_at(at) for at in range(30) if held.key_at(at)} == {
        **dict.fromkeys(range(4), key_of(0, 4)), **dict.fromkeys((6, 7), key_of(6, 2)),
    }  # fmt: skip
    assert [held.next_held(at, 100) for at in (0, 4, 8, 14, 24)] == [6, 6, 10, 20, 100]
    assert held.next_held(4, 5) == 5
    assert Stock().block_at(0) is None
    assert Stock().key_at(0) is None


def test_a_row_of_the_largest_count_ends_where_it_should() -> None:
    held = stock(rows=[(0, (1 << 20) - 1), ((1 << 20) - 1, 1)])
    assert held.key_at((1 << 20) - 2) == key_of(0, (1 << 20) - 1)
    assert held.key_at((1 << 20) - 1) == key_of((1 << 20) - 1, 1)


def test_rows_are_asked_for_once_and_the_next_ones_with_them() -> None:
    held = stock(rows=[(0, 2), (2, 2), (4, 2), (6, 2)])
    rung: list[int] = []
    held.load_soon = lambda: rung.append(1)
    # When the first is wanted, then so are those behind it
    assert held.loaded(key_of(0, 2)) is None
    assert list(held.wanted) == [key_of(0, 2), key_of(2, 2), key_of(4, 2)]
    assert held.loaded(key_of(0, 2)) is None
    assert len(rung) == 3
    held.put_loaded(key_of(0, 2), payload(1, 2))
    held.put_loaded(key_of(2, 2), None)
    held.put_loaded(key_of(4, 2), None)
    assert not held.wanted
    assert held.loaded(key_of(0, 2)) == payload(1, 2)
    assert held.oldest_row() == (1, 2)
    held.index.pop(0)
    assert held.oldest_row() is None


def test_only_a_few_rows_are_kept_in_memory() -> None:
    held = stock(rows=[(at, 1) for at in range(10)])
    for at in range(10):
        held.put_loaded(key_of(at, 1), payload())
    there = [at for at in range(10) if held.loaded(key_of(at, 1))]
    assert 1 <= len(there) <= 6
    assert there[-1] == 9


def test_only_what_is_on_disk_leaves_memory() -> None:
    held = stock(blocks=[(5, 2), (7, 2)], rows=[(0, 5)])
    assert not held.evict()
    held.blocks[0].key = SAVING
    assert not held.evict()
    held.blocks[0].key = key_of(5, 2)
    assert held.evict()
    assert list(held.index) == [key_of(0, 5), key_of(5, 2)]
    assert [one.first for one in held.blocks] == [7]
    assert not Stock().evict()


def test_freeing_from_below() -> None:
    held = stock(blocks=[(4, 2), (6, 2), (8, 2)], rows=[(0, 2), (2, 2)])
    held.blocks[0].key = key_of(4, 2)
    held.blocks[1].key = SAVING
    held.blocks[1].replaces = [key_of(6, 1)]
    gone = held.blocks[:2]
    assert not held.free_below(3)
    assert held.freed == [key_of(0, 2)]
    assert held.free_below(9)
    # Then rows of both kinds are superfluous, and a save under way is told
    assert sorted(held.freed) == sorted([key_of(0, 2), key_of(2, 2), key_of(4, 2), key_of(6, 1)])
    assert [one.start for one in gone] == [-1, -1]
    assert [one.first for one in held.blocks] == [8]


def test_freeing_in_the_middle() -> None:
    held = stock(blocks=[(10, 2), (12, 2), (14, 2)], rows=[(0, 2), (2, 2), (4, 2)])
    settled = {2, 3, 12, 13, 14}
    asked: list[tuple[int, int]] = []

    def is_settled(start: int, stop: int) -> bool:
        asked.append((start, stop))
        return set(range(start, stop)) <= settled

    assert not held.free_between(1, 4, is_settled)
    assert list(held.freed) == [key_of(2, 2)]
    assert list(held.index) == [key_of(0, 2), key_of(4, 2)]
    assert held.free_between(13, 15, is_settled)
    assert [one.first for one in held.blocks] == [10, 14]
    assert not held.free_between(50, 60, is_settled)


def test_what_is_not_saved() -> None:
    held = stock(blocks=[(0, 1), (1, 1), (2, 1)])
    held.blocks[0].key = SAVING
    found = held.unsaved()
    assert found is not None
    assert (found.first, held.first_unsaved()) == (1, 1)
    for one in held.blocks:
        one.key = key_of(one.first, 1)
    assert held.unsaved() is None
