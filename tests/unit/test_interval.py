from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters.delivery.interval import IntervalSet

BOUND = 40
spans = st.tuples(st.integers(0, BOUND), st.integers(0, BOUND))


def spread(ranges: IntervalSet) -> set[int]:
    return {value for start, stop in ranges for value in range(start, stop)}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), spans), max_size=25), spans)
def test_it_is_a_set_of_integers(steps: list[tuple[bool, tuple[int, int]]], asked: tuple[int, int]) -> None:
    # Given a set of ranges and Python's own, changed alike
    ranges, model = IntervalSet(), set[int]()
    for add, (start, stop) in steps:
        if add:
            ranges.add(start, stop)
            model |= set(range(start, stop))
        else:
            ranges.remove(start, stop)
            model -= set(range(start, stop))
        # Then they hold the same, in sorted ranges that neither touch nor are empty
        assert spread(ranges) == model
        pieces = list(ranges)
        assert all(a < b for a, b in pieces)
        assert all(b < c for (_, b), (c, _) in pairwise(pieces))
    # and every question has the same answer
    assert ranges.total == len(model)
    assert bool(ranges) == bool(model)
    assert [value in ranges for value in range(-1, BOUND + 2)] == [value in model for value in range(-1, BOUND + 2)]
    start, stop = asked
    assert ranges.meets(start, stop) == bool(set(range(start, stop)) & model)
    assert ranges.covers(start, stop) == (set(range(start, stop)) <= model)
    gaps = list(ranges.gaps(start, stop))
    assert {value for a, b in gaps for value in range(a, b)} == set(range(start, stop)) - model
    assert gaps == sorted(gaps)
    assert all(a < b for a, b in gaps)
    assert spread(IntervalSet(ranges)) == model


def test_ranges_that_touch_are_joined() -> None:
    ranges = IntervalSet([(0, 2), (4, 6), (2, 4)])
    assert list(ranges) == [(0, 6)]


def test_it_may_be_changed_while_it_is_walked() -> None:
    # Given a walk over the ranges, when each is taken out on the way, then the walk is not disturbed
    ranges = IntervalSet([(0, 1), (2, 3), (4, 5)])
    for start, stop in ranges:
        ranges.remove(start, stop)
    assert not ranges


def test_a_set_of_more_integers_than_there_is_memory() -> None:
    # Given the gap between the records on disk and those of a start that could not read it
    ranges = IntervalSet([(10, 1 << 41)])
    assert list(ranges) == [(10, 1 << 41)]
    assert ranges.total == (1 << 41) - 10
