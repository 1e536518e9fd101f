from __future__ import annotations

import collections
import enum
import json
import math
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters import EncodingError
from resilient_exporters.jobs import CorruptEntryError
from resilient_exporters.jobs.entry_text import entry_text, parse_entry


def unfolded(value: Any) -> Any:
    return value.replace(fold=0)  # ISO 8601 has no word for it


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.uuids()
    | st.dates() | st.datetimes().map(unfolded) | st.times().map(unfolded) | st.timedeltas()
    | st.decimals(allow_nan=False)
)  # fmt: skip
keys = st.text() | st.integers() | st.dates() | st.sampled_from(["$date", "$map", "$"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(values)
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    back = parse_entry(entry_text("1", value))
    assert back == value
    assert repr(back) == repr(value)  # 1 is not 1.0, nor True


@pytest.mark.parametrize(
    "value",
    [
        {1, 2, 3}, frozenset({"a"}), float("inf"), float("-inf"), timedelta.max, timedelta.min, 10**40,
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))), datetime.max, date.min,
        time(1, 2, 3, 4), b"\x00\xff", {"$date": "no date"}, {"$x": 1}, {(1, 2): {3: None}}, "\ud800 alone",
        {"a": {"b": [{"c": (1, [2])}]}}, Decimal("1.10"), uuid.UUID(int=5), -0.0,
    ],
    ids=repr,
)  # fmt: skip
def test_values_without_a_word_in_json_come_back(value: Any) -> None:
    back = parse_entry(entry_text("1", {"v": value}))
    assert back == {"v": value}
    assert type(back["v"]) is type(value)


def test_nan_comes_back() -> None:
    assert math.isnan(parse_entry(entry_text("1", float("nan"))))


def test_values_of_the_codec_come_back_too() -> None:
    numpy = pytest.importorskip("numpy")
    back = parse_entry(entry_text("1", {"a": numpy.arange(3), "b": collections.OrderedDict(x=1)}))
    assert back["a"].tolist() == [0, 1, 2]
    assert back["b"] == {"x": 1}

    class Colour(enum.Enum):
        RED = "red"

    assert parse_entry(entry_text("1", Colour.RED)) == "red"


def test_a_person_can_read_it() -> None:
    text = entry_text("260101", {"date": date(2026, 11, 20), "place": "Köln"}).decode()
    parms = {"date": {"$date": "2026-11-20"}, "place": "Köln"}
    whole = json.loads(text)
    assert abs(datetime.now(timezone.utc) - datetime.fromisoformat(whole.pop("stored"))) < timedelta(hours=1)
    assert whole == {"format": 1, "job": "260101", "parms": parms}
    assert "Köln" in text


def test_what_cannot_be_kept_is_named() -> None:
    with pytest.raises(EncodingError, match=r"parms\.jobs\[1\]"):
        entry_text("1", {"jobs": [1, object()]})
    deep: list = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(EncodingError, match="deeper"):
        entry_text("1", deep)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"null", b"[]", b"{}", b'{"parms": {}}', b'{"format": 2, "parms": {}}', b"\x80\x04K\x01.",
        b'{"format": 1, "parms": {"$date": "yesterday"}}', b'{"format": 1, "parms": {"$eval": "1+1"}}',
        b'{"format": 1, "parms": {"$date": 5}}', b'{"format": 1, "parms": {"$bytes": "!"}}',
        b'{"format": 1, "parms": {"$map": [1]}}', b'{"format": 1, "parms": {"$set": [[]]}}',
        b'{"format": 1, "parms": {"$packed": "wQ=="}}', b'{"format": 1, "parms": {"$decimal": "x"}}',
        b"[" * 100_000, b'{"format": 1, "parms": {"$timedelta": [1e99, 0, 0]}}', b"\xff\xfe",
    ],
    ids=lambda data: repr(data[:60]),
)  # fmt: skip
def test_what_is_no_entry_is_called_so_and_runs_nothing(data: bytes) -> None:
    with pytest.raises(CorruptEntryError):
        parse_entry(data)
