"""Sizes, times, counts and rates as people write them."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.units import parse_callable, parse_choice, parse_count, parse_rate, parse_seconds, parse_size


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0), (512, 512), (1e6, 10**6), ("16 MB", 16 * 10**6),
        ("512kB", 512_000), ("512 KB", 512_000), ("2 GiB", 2 * 2**30),
        ("2gib", 2 * 2**30), ("1.5 GB", 1_500_000_000), (".5 kB", 500),
        ("100", 100), ("100 B", 100), ("100 bytes", 100),
        ("16M", 16 * 10**6), ("16Mi", 2**24), ("1 TB", 10**12),
        ("1 TiB", 2**40), (" 1\tKiB ", 1024), ("1.2345 kB", 1234),
    ],
)  # fmt: skip
def test_a_size_is_in_bytes(value: Any, size: int) -> None:
    parsed = parse_size(value, "max_memory")
    assert (parsed, type(parsed)) == (size, int)


@pytest.mark.parametrize(
    "value",
    [
        -1,
        True,
        False,
        None,
        math.nan,
        math.inf,
        1.5,
        "",
        "MB",
        "16 XB",
        "-16 MB",
        "nan MB",
        "1e3",
        "1,5 GB",
        "16 MB/s",
        "1 MBB",
        "١٦ MB",
        b"16",
        [16],
    ],
    ids=repr,
)
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_size(value, "max_memory")
    assert str(caught.value).startswith(f"max_memory={value!r} is not possible; give ")
    assert "16 MB" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (5, 5.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
        (timedelta(milliseconds=5), 0.005),
        (math.inf, math.inf),
    ],
    ids=repr,
)
def test_a_time_is_in_seconds(value: Any, seconds: float) -> None:
    parsed = parse_seconds(value, "timeout")
    assert (parsed, type(parsed)) == (seconds, float)


@pytest.mark.parametrize(
    "value", [-1, -0.001, timedelta(-1), math.nan, True, "5", "5 s", None, [5], -math.inf], ids=repr
)
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(
        InvalidConfigError, match=r"^timeout=.* is not possible; give seconds, 0 or more, as a number or a timedelta$"
    ):
        parse_seconds(value, "timeout")


def test_zero_and_none_are_times_only_where_they_mean_something() -> None:
    assert parse_seconds(None, "max_age", none_ok=True) is None
    for value in (0, 0.0, timedelta(0)):
        with pytest.raises(InvalidConfigError, match="more than 0, as a number or a timedelta, or None"):
            parse_seconds(value, "max_age", none_ok=True, zero_ok=False)


def test_a_count_is_a_whole_number() -> None:
    assert parse_count(1, "workers") == 1
    assert type(parse_count(4.0, "workers")) is int
    assert parse_count(0, "max_dead", minimum=0) == 0
    assert parse_count(None, "max_records", none_ok=True) is None
    assert parse_count(2**63 - 1, "max_records") == 2**63 - 1
    with pytest.raises(InvalidConfigError, match="9223372036854775807 at most"):
        parse_count(10**30, "max_records")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4", None, math.nan, math.inf], ids=repr)
def test_what_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(InvalidConfigError, match=r"^workers=.* is not possible; give a whole number, 1 or more$"):
        parse_count(value, "workers")


def test_a_choice_is_one_of_a_few_and_a_near_one_is_suggested() -> None:
    choices = ("drop_oldest", "drop_newest", "block", "raise")
    assert parse_choice("block", "on_full", choices) == "block"
    with pytest.raises(InvalidConfigError) as caught:
        parse_choice("Drop-Oldest", "on_full", choices)
    assert str(caught.value) == (
        "on_full='Drop-Oldest' is not possible; "
        'give "drop_oldest", "drop_newest", "block" or "raise"; did you mean "drop_oldest"?'
    )
    for value in ("zzz", None, 5, ["block"]):
        with pytest.raises(InvalidConfigError, match=r'or "raise"$'):
            parse_choice(value, "on_full", choices)
    with pytest.raises(InvalidConfigError, match=r'give "fifo"$'):
        parse_choice(1, "drain", ["fifo"])


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (100, (100.0, "records")), (0.5, (0.5, "records")),
        ("100/s", (100.0, "records")), ("100 records/s", (100.0, "records")),
        ("1 record / s", (1.0, "records")), ("500 kB/s", (500_000.0, "bytes")), ("1.5MiB/S", (1.5 * 2**20, "bytes")),
        ("10 B/s", (10.0, "bytes")), ("10 bytes/s", (10.0, "bytes")), ("2k/s", (2000.0, "bytes")),
    ],
)  # fmt: skip
def test_a_rate_is_per_second(value: Any, rate: tuple[float, str]) -> None:
    assert parse_rate(value, "drain_rate") == rate


@pytest.mark.parametrize(
    "value",
    [0, -1, True, math.nan, math.inf, "0/s", "0 kB/s", "100", "500 kB", "5/min", "/s", "-5/s", "x/s", None],
    ids=repr,
)
def test_what_is_no_rate_is_refused(value: Any) -> None:
    with pytest.raises(InvalidConfigError, match=r"^drain_rate=.* is not possible; give records per second above 0"):
        parse_rate(value, "drain_rate")


def test_a_callable_can_be_called() -> None:
    assert parse_callable(len, "transform") is len
    assert parse_callable(None, "transform", none_ok=True) is None
    for value in (None, "len", 5):
        with pytest.raises(InvalidConfigError, match=r"^transform=.* is not possible; give a function"):
            parse_callable(value, "transform")
