"""Law 2, fidelity: what the target gets equals what was sent, through memory, through disk and through a restart."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import OrderedDict, defaultdict
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from resilient_exporters import EncodingError
from resilient_exporters.delivery.ring import ring_path
from tests.targets import PATIENCE, Target


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Reading:
    metric: float
    tags: list[str]


VALUES: list[Any] = [
    "", "text", "ümläut 🦀 \x00 \n", b"", b"\x00\xff" * 50, 0, -1, 2**31, -(2**63), 2**64 - 1, 2**64, -(2**200),
    10**400, 0.0, -0.0, 1e308, 5e-324, 0.1, math.inf, -math.inf, True, False, None, [], {},
    [1, [2, [3, {"a": [None]}]]],
    {"a": {"b": {"c": 1}}}, {1: "int key", (1, 2): "tuple key", None: 1, 2.5: 3}, {False: 0, True: 1},
    datetime(2024, 2, 29, 23, 59, 59, 999999), datetime(1, 1, 1), datetime(9999, 12, 31, tzinfo=timezone.utc),
    datetime(2040, 1, 1, 12, tzinfo=timezone(timedelta(hours=-3, minutes=-30))), date(1900, 1, 1), date(2100, 12, 31),
    time(1, 2, 3, 4), timedelta(days=-5, microseconds=1), timedelta(days=99999), Decimal("1.10"), Decimal("-1E+500"),
    Decimal("NaN"), Decimal("Infinity"), UUID(int=7), {1, 2, 3}, frozenset({"a"}), set(), (1, "two", (3.0,)), (),
]  # fmt: skip


def equal(one: Any, two: Any) -> bool:
    """Equal, of the same type, nan being nan and -0.0 being -0.0, with the same order of keys."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, two) and (one == two or (math.isnan(one) and math.isnan(two)))
    if isinstance(one, Decimal):
        return one.as_tuple() == two.as_tuple()
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(equal, one, two))
    if isinstance(one, dict):
        return len(one) == len(two) and all(
            equal(a, b) and equal(one[a], two[b]) for a, b in zip(one, two, strict=True)
        )  # fmt: skip
    if isinstance(one, datetime):
        return bool(one == two) and one.utcoffset() == two.utcoffset()
    return bool(one == two)


def ways(data: list[Any]) -> dict[str, list[Any]]:
    """The same records through memory, through memory and a restart, and through disk and a restart."""
    found: dict[str, list[Any]] = {}
    target = Target(name="memory")
    target.send(data)
    assert target.flush(PATIENCE).complete
    found["memory"] = target.taken
    for way in ("restart", "disk"):
        target = Target(ConnectionError("down"), name=way, retry=3600)
        target.send(data)
        assert target.save(PATIENCE)
        target.close(0)
        if way == "disk":
            assert target.directory is not None
            ring = ring_path(target.directory)
            assert ring is not None
            ring.unlink()
        later = Target(name=way)
        assert later.flush(PATIENCE).complete
        found[way] = later.taken
    return found


def test_every_type_by_every_way() -> None:
    # Given
    records = [{"value": value} for value in VALUES]

    # When / Then
    for way, taken in ways(records).items():
        assert len(taken) == len(records)
        for sent, got in zip(records, taken, strict=True):
            assert equal(sent, got), f"{way}: {sent!r} became {got!r}"


def test_nan_stays_nan() -> None:
    for taken in ways([{"value": math.nan}]).values():
        assert math.isnan(taken[0]["value"])


def test_enums_dataclasses_and_other_mappings_arrive_as_plain_values() -> None:
    # Given
    records = [{"c": Colour.RED, "r": Reading(1.5, ["a"])}, OrderedDict(b=1, a=2), defaultdict(int, x=1)]

    # When / Then
    for way, taken in ways(records).items():
        assert taken == [{"c": "red", "r": {"metric": 1.5, "tags": ["a"]}}, {"b": 1, "a": 2}, {"x": 1}], way
        assert [type(one) for one in taken] == [dict] * 3


def test_numpy_arrives_as_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    records = [{"scalar": numpy.float32(1.5), "array": numpy.arange(6).reshape(2, 3), "flag": numpy.bool_(True)}]
    for way, taken in ways(records).items():
        assert type(taken[0]["scalar"]) is numpy.float32, way
        assert taken[0]["scalar"] == numpy.float32(1.5)
        assert numpy.array_equal(taken[0]["array"], records[0]["array"])
        assert taken[0]["array"].dtype == records[0]["array"].dtype


def test_options_too() -> None:
    # Given
    target = Target(ConnectionError("down"), name="options", retry=3600)
    target.send({"n": 1}, table=("a", 1), urgent=datetime(2024, 1, 1))
    target.close(0)

    # When
    later = Target(name="options")
    assert later.flush(PATIENCE).complete

    # Then
    assert dict(later.seen[0][0].options) == {"table": ("a", 1), "urgent": datetime(2024, 1, 1)}


@pytest.mark.parametrize("value", [object(), Colour, lambda: 1, open, iter([1])])
def test_what_cannot_be_kept_is_refused_by_send(value: Any) -> None:
    target = Target()
    with pytest.raises(EncodingError):
        target.send({"value": value})
    assert target.stats().accepted == 0
