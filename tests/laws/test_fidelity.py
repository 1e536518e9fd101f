"""Law 2, Fidelity, for the codec: what comes back equals what was sent, in value and in type."""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.codec import decode, decode_with_options, encode, encode_with_options
from resilient_exporters.errors import EncodingError

ZONES = st.none() | st.integers(-86_399_999_999, 86_399_999_999).map(lambda us: timezone(timedelta(microseconds=us)))
TEXTS = st.text() | st.text(st.characters(categories=["Cs", "L"]))  # with lone surrogates
SINGLES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**200), 2**200), st.floats(), TEXTS, st.binary(),
    st.datetimes(timezones=ZONES), st.datetimes(), st.dates(), st.times(), st.timedeltas(), st.decimals(), st.uuids(),
)  # fmt: skip
KEYS = st.recursive(
    SINGLES.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan())),  # an sNaN cannot be hashed
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
RECORDS = st.recursive(
    SINGLES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(TEXTS, inner, max_size=5),
        st.dictionaries(KEYS, inner, max_size=5),
        st.sets(KEYS, max_size=4),
        st.frozensets(KEYS, max_size=4),
    ),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """Return a text that is the same for values that are the same, down to types, signs, offsets, and no further."""
    if isinstance(value, dict):
        return ["dict", *([shape(key), shape(item)] for key, item in value.items())]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(shape, value)]
    if isinstance(value, (set, frozenset)):
        return [type(value).__name__, *sorted(map(repr, map(shape, value)))]
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return f"{type(value).__name__} {value!r} {getattr(value, 'fold', '')}"


@given(RECORDS)
def test_a_record_comes_back_as_it_was(record: Any) -> None:
    assert shape(decode(encode(record))) == shape(record)


@given(RECORDS, st.dictionaries(st.text(), RECORDS, max_size=3))
def test_options_come_back_as_they_were(record: Any, options: dict[str, Any]) -> None:
    assert shape(decode_with_options(encode_with_options(record, options))) == shape((record, options))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    """No bytes, wherever they come from, do anything else than give a value or an EncodingError."""
    with contextlib.suppress(EncodingError):
        decode(payload)
