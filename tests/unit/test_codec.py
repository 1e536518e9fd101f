"""The codec: what is written, what comes back, and what is refused."""

from __future__ import annotations

import array
import collections
import contextlib
import dataclasses
import decimal
import enum
import math
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from resilient_exporters import codec, foreign
from resilient_exporters.codec import decode, decode_with_options, encode, encode_with_options
from resilient_exporters.errors import EncodingError

GOLDEN = Path(__file__).parent.parent / "golden" / "codec-v1.bin"

READING = {"sensor": "bme280-7", "seq": 7, "ts": 1763700000.123, "ok": True, "note": None, "raw": b"\x00\xff"}


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal, of the same types, all the way down; nan is nan, -0.0 is not 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or (
            left == right and math.copysign(1, left) == math.copysign(1, right)
        )
    if isinstance(left, Decimal):
        return str(left) == str(right)
    if isinstance(left, (datetime, time)):
        return (
            left.replace(tzinfo=None) == right.replace(tzinfo=None)
            and left.utcoffset() == right.utcoffset()
            and left.fold == right.fold
        )
    if isinstance(left, dict):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left.items(), right.items(), strict=True))
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    if isinstance(left, (set, frozenset)):
        return left == right and {type(item) for item in left} == {type(item) for item in right}
    return bool(left == right)


class Texts(str):
    __slots__ = ()


class Numbers(int):
    pass


class Reals(float):
    pass


class Octets(bytes):
    pass


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Mode(str, enum.Enum):
    FAST = "fast"


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class Place:
    name: str
    at: datetime
    tags: set[str]


@dataclasses.dataclass(frozen=True)
class Frozen:
    name: str


class Packet(msgspec.Struct):
    size: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class BrokenZone(tzinfo):
    def tzname(self, dt: datetime | None) -> str:
        return "broken"

    def dst(self, dt: datetime | None) -> None:
        return None

    def utcoffset(self, dt: datetime | None) -> timedelta:
        raise RuntimeError("no table")


class BrokenField:
    __attrs_attrs__ = (types.SimpleNamespace(name="value"),)

    @property
    def value(self) -> int:
        raise OverflowError("sensor gone")

    def __repr__(self) -> str:
        raise RuntimeError("no repr either")


class Attributed:
    __attrs_attrs__ = (types.SimpleNamespace(name="low"), types.SimpleNamespace(name="high"))

    def __init__(self) -> None:
        self.low, self.high = 1, 2**70


EXACT: list[Any] = [
    None, True, False, 0, 1, -1, 2**63, 2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 10**400, -(10**400), -(2**71), 2**71,
    0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 5e-324, sys.float_info.max,
    "", "text", "é€𝄞", "\ud800", "a\udfffb", "\x00", b"", b"\x00\xff", [], {}, (), set(), frozenset(),
    [None, [1, [2.5, ["x"]]]],
    READING, {"a": {"b": {"c": [1, {"d": "e"}]}}}, {"big": 2**64, "deep": {"text": "\udc80"}},
    {"\ud800": 1, "b": {"\udfff": [2**99]}},
    {2: "a", 2.5: "b", b"c": 3, None: 4, True: 5, "x": 6},
    {2**70: 1, -(2**70): {3**90: 2}}, {(1, "a"): 2, frozenset({1, 2}): 3, (date(2020, 1, 1), (b"x",)): 4},
    {datetime(2020, 1, 1): 1, uuid.UUID(int=5): 2, Decimal("1.50"): 3, timedelta(1): 4}, {math.nan: 1},
    datetime.min, datetime.max, datetime(2025, 11, 21, 10, 30, 15, 123456), datetime(2025, 10, 26, 2, 30, fold=1),
    datetime(2025, 11, 21, tzinfo=timezone.utc), datetime(1, 1, 1, tzinfo=timezone.utc),
    datetime(2025, 11, 21, 1, 2, 3, 4, timezone(timedelta(hours=5, minutes=30))),
    datetime(2025, 11, 21, tzinfo=timezone(timedelta(hours=-23, minutes=-59, seconds=-59, microseconds=-999999))),
    datetime(2025, 11, 21, tzinfo=timezone(timedelta(microseconds=1))),
    date.min, date.max, time.min, time.max, time(12, 30, 1, 5, fold=1),
    time(12, 30, tzinfo=timezone(timedelta(hours=-3))),
    timedelta.min, timedelta.max, timedelta(0), timedelta(microseconds=-1),
    timedelta(days=-3, seconds=5, microseconds=7),
    Decimal("1.10"), Decimal("-0"), Decimal("1E+400"), Decimal("1E-9999"), Decimal("NaN"), Decimal("-sNaN123"),
    Decimal("-Infinity"),
    Decimal("9" * 5000), uuid.UUID("12345678-1234-5678-1234-567812345678"),
    {1, "a", None, 2.5}, {(1, 2), frozenset({3})}, frozenset({2**80, "\ud800"}), {date(2020, 1, 1)},
    {frozenset({(1, frozenset())})},
    (1, (2, [3, {"four": (5,)}])), ((),), [(datetime(2020, 1, 1),)], ("\ud800", 2**64), {"t": (1,), "s": {1}},
]  # fmt: skip


@pytest.mark.parametrize("value", EXACT, ids=foreign.short)
def test_a_value_comes_back_exactly(value: Any) -> None:
    # Given a value, alone and inside of others
    for whole in (value, [value], {"k": value}, (value, value), {"a": 1, "b": [{"c": value}]}):
        # When it is written and read
        back = decode(memoryview(encode(whole)))
        # Then it is the same, in value and type
        assert same(back, whole)


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (Texts("x"), "x"),
        (Texts("\ud800"), "\ud800"),
        (Numbers(3), 3),
        (Numbers(2**70), 2**70),
        (Reals(0.5), 0.5),
        (Octets(b"x"), b"x"),
        (Colour.RED, "red"),
        (Colour.PAIR, (1, 2)),
        (Level.HIGH, 3),
        (Mode.FAST, "fast"),
        (Point(1, 2.5), (1, 2.5)),
        (Place("roof", datetime(2020, 1, 1), {"a"}), {"name": "roof", "at": datetime(2020, 1, 1), "tags": {"a"}}),
        (Packet(3), {"size": 3}),
        (Packet(3, "n"), {"size": 3, "note": "n"}),
        (Attributed(), {"low": 1, "high": 2**70}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (types.MappingProxyType({"a": (1,)}), {"a": (1,)}),
        (collections.deque([1, 2]), [1, 2]),
        (array.array("d", [1.5]), [1.5]),
        ({Texts("k"): 1, Mode.FAST: 2, Level.HIGH: 3, Colour.PAIR: 4}, {"k": 1, "fast": 2, 3: 3, (1, 2): 4}),
        ({Texts("k"): 1, Mode.FAST: 2}, {"k": 1, "fast": 2}),
        ({"n": {Texts("k"): Level.HIGH}}, {"n": {"k": 3}}),
        ({Level.HIGH, Colour.RED}, {3, "red"}),
        (datetime(2025, 7, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), datetime(2025, 7, 1, tzinfo=timezone.utc)),
        (time(1, tzinfo=zoneinfo.ZoneInfo("Europe/Brussels")), time(1)),
    ],
    ids=foreign.short,
)
def test_what_has_no_counterpart_arrives_as_the_plain_value(value: Any, arrives: Any) -> None:
    for whole, expected in ((value, arrives), ({"k": [value]}, {"k": [arrives]})):
        assert same(decode(encode(whole)), expected)


def test_an_ordered_dict_keeps_its_order() -> None:
    ordered = collections.OrderedDict(a=1, b=2, c=3)
    ordered.move_to_end("a")
    assert list(decode(encode(ordered))) == ["b", "c", "a"]


def test_a_zone_arrives_as_its_offset_on_both_sides_of_the_fold() -> None:
    zone = zoneinfo.ZoneInfo("Europe/Brussels")
    for fold, hours in ((0, 2), (1, 1)):
        back = decode(encode(datetime(2025, 10, 26, 2, 30, tzinfo=zone, fold=fold)))
        assert (back.utcoffset(), back.fold, back.hour) == (timedelta(hours=hours), fold, 2)


def test_the_encoding_is_a_snapshot_and_the_record_is_untouched() -> None:
    # Given a record with values of all sorts
    inner = {"at": datetime(2020, 1, 1), "n": 2**70}
    record = {"inner": inner, "list": [inner, (1,)]}
    # When it is encoded
    payload = encode(record)
    # Then it is as before, the same objects in it, and later changes do not show
    assert record["inner"] is inner
    assert inner == {"at": datetime(2020, 1, 1), "n": 2**70}
    inner["n"] = 0
    assert decode(payload)["inner"]["n"] == 2**70


def test_plain_records_are_plain_messagepack() -> None:
    assert msgspec.msgpack.decode(encode(READING)) == READING
    assert encode({1: {2: 3}}) == msgspec.msgpack.encode({1: {2: 3}})


def test_options_travel_with_the_record() -> None:
    for options in ({}, {"collection": "x", "at": datetime(2020, 1, 1)}):
        assert decode_with_options(encode_with_options(READING, options)) == (READING, options)
    with pytest.raises(EncodingError, match=r"^options\.to: cannot keep a value of type object"):
        encode_with_options(READING, {"to": object()})


@pytest.mark.parametrize(
    "value", [object(), 1j, range(3), (x for x in "a"), len, Path(), int, Frozen, NotImplemented], ids=foreign.short
)
def test_what_cannot_be_kept_is_refused_by_name(value: Any) -> None:
    with pytest.raises(EncodingError, match=r"^record: cannot keep a value of type .*: ") as caught:
        encode(value)
    assert type(value).__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("record", "path"),
    [
        ({"location": [1, 2, object()]}, "record.location[2]"),
        ({"odd key": object()}, "record['odd key']"),
        ({"a": {"b": ({1: object()},)}}, "record.a.b[0][1]"),
        ({"a": {(1, object()): 2}}, "record.a key (1, <object object at"),
        ({object(): 2}, "record key <object object at"),
        ([Place("x", datetime(2020, 1, 1), {object()})], "record[0].tags[0]"),  # type: ignore[arg-type] # wrong on purpose
        ({"at": datetime(2020, 1, 1, tzinfo=BrokenZone())}, "record.at"),
        ({"x": [BrokenField()]}, "record.x[0]"),
        ({"e": enum.Enum("E", {"A": object()}).A}, "record.e"),  # type: ignore[attr-defined] # an enum made at run time
    ],
    ids=foreign.short,
)
def test_the_error_names_the_path(record: Any, path: str) -> None:
    with pytest.raises(EncodingError) as caught:
        encode(record)
    assert str(caught.value).startswith(path)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"k": {Colour.RED: 1, "red": 2}}, r"record\.k: .*two of its keys arrive as the same value"),
        ({1, Level.HIGH, enum.Enum("E", {"A": 1}).A}, r"record: .*two of its members arrive as the same value"),  # type: ignore[attr-defined] # made here
        ({Frozen("a")}, r"record: .*arrives as a dict, which cannot be hashed"),
        ({(Frozen("a"),): 1}, r"record: .*arrives as a tuple, which cannot be hashed"),
    ],
    ids=foreign.short,
)
def test_keys_and_members_that_would_be_lost_are_refused(record: Any, reason: str) -> None:
    with pytest.raises(EncodingError, match=reason):
        encode(record)


def test_circular_references_are_refused() -> None:
    loop: dict[str, Any] = {"a": 1}
    loop["self"] = [loop]
    with pytest.raises(EncodingError, match=r"^record\.x\.self\[0\]: is record\.x again, a circular reference"):
        encode({"x": loop})


def nested(levels: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


WRAPS = {
    "dict": lambda value: {"a": value},
    "list": lambda value: [value],
    "tuple": lambda value: (value,),
    "frozenset": lambda value: frozenset([value]),
    "pairs": lambda value: {(1,): value},
    "frozen key": lambda value: frozenset({(value,)}),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_nesting_is_bounded_and_what_is_taken_can_be_read(wrap: Any) -> None:
    # Given a value within the bound (what stands in a key counts twice), it comes back
    value = nested(codec.MAX_DEPTH - 5 if wrap is not WRAPS["frozen key"] else 95, wrap)
    assert decode(encode(value)) == value
    # Given one far outside, it is refused
    for levels in (codec.MAX_DEPTH + 5, 100_000):
        deep = nested(levels, wrap)
        with pytest.raises(EncodingError, match=r"nested too deeply|no stack left"):
            encode(deep)
        while isinstance(deep, (dict, list)):  # taken apart here: CPython < 3.12 can run out of C stack freeing it
            deep = deep.popitem()[1] if isinstance(deep, dict) else deep.pop()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\x01\x01",
        b"\xd4\x7f\x00",
        b"\xd4\x07\x00",
        b"\xd4\x04\x01",
        b"\x91" * 100_000 + b"\x01",
        b"\xd4\x0b\xff",
        b"\xd4\x0c\x00",
        b"\xc7\x02\x03\x91\x01",
        b"\xa1\xff",
    ],
)
def test_bytes_of_another_origin_are_refused(payload: bytes) -> None:
    with pytest.raises(EncodingError, match="cannot decode these"):
        decode(payload)


@pytest.mark.parametrize("value", [1, [1], [1, 2], [1, {}, 3]])
def test_a_record_without_options_is_no_record_with_options(value: Any) -> None:
    with pytest.raises(EncodingError, match="not a record with options"):
        decode_with_options(encode(value))


def test_threads_share_the_codec() -> None:
    # Given many records with nested special values
    records = [{"n": n, "at": (datetime(2020, 1, 1), {n, 2**70 + n}), "d": {(n,): "\ud800"}} for n in range(200)]
    results: list[bool] = []

    # When several threads encode and decode at once
    def work() -> None:
        results.append(all(decode(encode(record)) == record for record in records))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then each gets its own
    assert results == [True] * 4


# ------------------------------------------------------------------------------------------------ other libraries


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make a library look as if it were not installed."""

    def hide(*names: str) -> None:
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
        foreign._module.cache_clear()

    yield hide
    monkeypatch.undo()
    foreign._module.cache_clear()


def test_no_library_is_imported_for_plain_values() -> None:
    import subprocess

    code = (
        "import sys, datetime; from resilient_exporters import codec\n"
        "codec.decode(codec.encode({'a': (1, {2}), 'b': datetime.datetime.now()}))\n"
        "print([name for name in ('numpy', 'pandas', 'bson') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numpy_arrays_and_scalars_come_back_as_they_were(without: Any) -> None:
    numpy = pytest.importorskip("numpy")
    arrays: list[tuple[Any, Any]] = [
        (numpy.array([[1.5, numpy.nan], [3, 4]]), None),
        (numpy.arange(24, dtype=">i2").reshape(2, 3, 4), None),
        (numpy.asfortranarray(numpy.arange(6, dtype="u1").reshape(2, 3)), None),
        (numpy.array([True, False]), None),
        (numpy.array([0.5, 2], "f2"), None),
        (numpy.array(7), 7),
        (numpy.zeros((0, 3)), []),
        (numpy.zeros((2, 0), "f4"), [[], []]),
        (numpy.array(["a", "b€\0"]), ["a", "b€"]),
        (numpy.array(["a", "bc"], ">U2"), ["a", "bc"]),
        (numpy.array([b"a", b"bc"]), [b"a", b"bc"]),
        (numpy.array([], "U"), []),
        (
            numpy.array(["2025-11-21T10:00:00.123456789", "NaT"], "M8[ns]"),
            [datetime(2025, 11, 21, 10, 0, 0, 123456), None],
        ),
        (numpy.array(["2025-11", "1969-12"], "M8[M]"), [datetime(2025, 11, 1), datetime(1969, 12, 1)]),
        (numpy.array([90, -1], "m8[10s]"), [timedelta(seconds=900), timedelta(seconds=-10)]),
    ]
    scalars = [
        numpy.float64(1.5), numpy.float32(0.5), numpy.int8(-3), numpy.uint64(2**64 - 1), numpy.bool_(True),
        numpy.str_("a\ud800"), numpy.bytes_(b"a\0"), numpy.datetime64("2025-11-21", "D"), numpy.timedelta64(5, "h"),
    ]  # fmt: skip
    items = numpy.empty((2, 2), object)
    items[:] = [[1, "a"], [None, 2**70]]
    items[0, 0] = [1, (2,)]

    payload = encode({"arrays": [sent for sent, _ in arrays], "scalars": scalars, "items": items})
    back = decode(payload)
    for (sent, _), got in zip(arrays, back["arrays"], strict=True):
        assert (got.dtype, got.shape, got.flags.writeable) == (sent.dtype, sent.shape, True)
        assert got.tobytes() == sent.tobytes()
    for scalar, got in zip(scalars, back["scalars"], strict=True):
        assert (type(got), got.dtype) == (type(scalar), scalar.dtype)
        assert got == scalar
    assert back["items"].shape == (2, 2)
    assert back["items"].tolist() == items.tolist()
    assert decode(encode({numpy.float64(2.5): {numpy.int32(3)}})) == {2.5: {3}}

    # Where numpy is not installed, the same bytes give plain values
    without("numpy")
    back = decode(payload)
    for (sent, expected), got in zip(arrays, back["arrays"], strict=True):
        assert same(got, sent.tolist() if expected is None else expected)
    assert same(
        back["scalars"], [1.5, 0.5, -3, 2**64 - 1, True, "a\ud800", b"a\0", datetime(2025, 11, 21), timedelta(hours=5)]
    )
    assert back["items"] == [[[1, (2,)], "a"], [None, 2**70]]


def test_a_number_of_numpy_is_written_alike_the_first_time_and_later() -> None:
    numpy = pytest.importorskip("numpy")

    celsius = type("Celsius", (numpy.float64,), {})
    floats, sizes = ["float16", "float32", "float64"], (8, 16, 32, 64)
    own = [*floats, *(f"{sign}int{size}" for sign in ("", "u") for size in sizes), "bool_", "longlong", "ulonglong"]
    made = [getattr(numpy, name)(number) for number in (1, 0, 100) for name in own]
    made += [numpy.float64("nan"), numpy.float64(-0.0), numpy.float32("-inf"), numpy.int64(-(2**63)), celsius(1.5)]
    made += [numpy.datetime64("2025-11-21", unit) for unit in ("D", "s", "ns")]
    made += [numpy.timedelta64(5, "h"), numpy.timedelta64(5, "D"), celsius(2.5), numpy.float64(2.5)]
    for value in made * 2:
        parts = msgspec.msgpack.encode([value.dtype.str, value.tobytes()])
        expected = msgspec.msgpack.encode({"x": msgspec.msgpack.Ext(14, parts)})
        assert encode({"x": value}) == expected, repr(value)

    deep: Any = numpy.float64(1.5)
    for _ in range(codec.MAX_DEPTH + 1):
        deep = [deep]
    for _ in range(2):
        with pytest.raises(EncodingError, match="nested too deeply"):
            encode(deep)


def test_numpy_values_that_are_not_portable_are_refused() -> None:
    numpy = pytest.importorskip("numpy")
    for value, hint in [
        (numpy.ma.masked_array([1, 2], [True, False]), "filled"),
        (numpy.array([1j]), "real and imag"),
        (numpy.complex128(1j), "real and imag"),
        (numpy.zeros(2, "i4,f8"), "tolist"),
        (numpy.zeros(2, "i4,f8")[0], "tolist"),
    ]:
        with pytest.raises(EncodingError, match=rf"^record\.x: cannot keep a value of type numpy.*{hint}"):
            encode({"x": value})


def test_far_away_times_arrive_as_their_ticks_without_numpy(without: Any) -> None:
    numpy = pytest.importorskip("numpy")
    payload = encode(
        [
            numpy.datetime64(10**6, "Y"),
            numpy.datetime64(10**18, "s"),
            numpy.timedelta64(3, "Y"),
            numpy.timedelta64(10**18, "s"),
            numpy.datetime64(10**12, "s"),
        ]
    )
    without("numpy")
    assert decode(payload) == [10**6, 10**18, 3, 10**18, 10**12]


def test_pandas_values_come_back_as_they_were(without: Any) -> None:
    pandas = pytest.importorskip("pandas")
    values = [
        pandas.Timestamp("2025-11-21T10:00:00.123456789"),
        pandas.Timestamp("2025-11-21T10:00:00", tz="Europe/Brussels"),
        pandas.Timestamp("2025-11-21").as_unit("s"),
        pandas.Timedelta("-1 days 00:00:00.000000001"),
        pandas.NaT,
        pandas.NA,
    ]
    payload = encode(values)
    back = decode(payload)
    for value, got in zip(values, back, strict=True):
        assert type(got) is type(value)
    assert back[4:] == [pandas.NaT, pandas.NA] or (back[4] is pandas.NaT and back[5] is pandas.NA)
    assert back[:4] == values[:4]
    assert (back[2].unit, back[1].utcoffset()) == ("s", timedelta(hours=1))
    for frame, hint in [
        (pandas.DataFrame({"a": [1]}), r"df\.to_dict\('records'\)"),
        (pandas.Series([1]), "tolist"),
        (pandas.Index([1]), "tolist"),
    ]:
        with pytest.raises(EncodingError, match=hint):
            encode(frame)

    without("pandas")
    zone = timezone(timedelta(hours=1))
    expected = [
        datetime(2025, 11, 21, 10, 0, 0, 123456),
        datetime(2025, 11, 21, 10, tzinfo=zone),
        datetime(2025, 11, 21),
        timedelta(days=-1),
        None,
        None,
    ]
    assert same(decode(payload), expected)


def test_bson_values_come_back_as_they_were(without: Any) -> None:
    bson = pytest.importorskip("bson")
    milliseconds = pytest.importorskip("bson.datetime_ms").DatetimeMS
    plain = [
        bson.ObjectId("0123456789abcdef01234567"),
        bson.Int64(5),
        bson.Binary(b"x", 0),
        bson.Binary(b"y" * 16, 4),
        bson.Decimal128("1.50"),
    ]
    rare = [
        bson.Regex("a.*", 2), bson.Code("f()", {"x": 1}), bson.Timestamp(5, 6), bson.MinKey(), bson.MaxKey(),
        bson.DBRef("c", bson.ObjectId("0123456789abcdef01234567")), milliseconds(2**60),
    ]  # fmt: skip
    back = decode(encode(plain + rare))
    assert back == plain + rare
    assert [type(value) for value in back] == [type(value) for value in plain + rare]
    assert decode(encode({plain[0]: {plain[0], plain[1]}})) == {plain[0]: {plain[0], 5}}
    assert decode(encode(bson.SON([("a", 1)]))) == {"a": 1}
    payload = encode(plain)

    without("bson")
    assert same(decode(payload), ["0123456789abcdef01234567", 5, b"x", b"y" * 16, Decimal("1.50")])


def test_a_rare_bson_value_without_bson_is_told(without: Any) -> None:
    bson = pytest.importorskip("bson")
    payload = encode(bson.MinKey())
    without("bson")
    with pytest.raises(EncodingError, match=r"resilient-exporters\[mongodb\]"):
        decode(payload)


def test_names_in_the_data_select_from_fixed_tables_only() -> None:
    pack = msgspec.msgpack.encode
    for code, parts in [
        (foreign.NUMPY_ARRAY, ["|V4", [1], b"abcd"]),
        (foreign.NUMPY_ARRAY, ["<f8", [10], b"short"]),
        (foreign.NUMPY_SCALAR, ["os.system", b""]),
        (foreign.PANDAS, ["read_pickle", 1, "s"]),
        (foreign.BSON, ["__import__", 1]),
    ]:
        with pytest.raises(EncodingError, match="cannot decode"):
            decode(pack(msgspec.msgpack.Ext(code, pack(parts))))


# --------------------------------------------------------------------------------------------------- golden file

GOLDEN_VALUE = {
    "plain": {
        "text": "é€",
        "bytes": b"\x00\xff",
        "int": -5,
        "float": 1.5,
        "true": True,
        "none": None,
        "list": [1, [2]],
    },
    "float": [math.inf, -math.inf, math.nan, -0.0],
    "int": [2**64, -(2**63) - 1, 2**71],
    "surrogate": "a\ud800",
    "map": {(1, "a"): 2, 3: {"x": 4}},
    "tuple": (1, (2,)),
    "set": {1},
    "frozenset": frozenset({(1,)}),
    "datetime": [
        datetime(2025, 11, 21, 10, 30, 15, 123456),
        datetime(2025, 10, 26, 2, 30, tzinfo=timezone(timedelta(hours=1)), fold=1),
        datetime(2025, 11, 21, tzinfo=timezone.utc),
    ],
    "date": date(2025, 11, 21),
    "time": [time(1, 2, 3, 4), time(1, 2, tzinfo=timezone(timedelta(hours=-5)), fold=1)],
    "timedelta": timedelta(days=-1, seconds=2, microseconds=3),
    "decimal": [Decimal("-1.50E+10"), Decimal("sNaN")],
    "uuid": uuid.UUID("12345678-1234-5678-1234-567812345678"),
}
GOLDEN_FOREIGN = {
    "numpy array": [[1.5, 2.5], [3.5, 4.5]],
    "numpy objects": [[1], None],
    "numpy scalar": [7, "text", datetime(2025, 11, 21)],
    "pandas": [datetime(2025, 11, 21, 10, tzinfo=timezone(timedelta(hours=1))), timedelta(seconds=1), None, None],
    "object id": "0123456789abcdef01234567",
    "bson": [5, b"x", Decimal("1.50")],
}


def test_a_record_deep_in_the_stack_is_refused_not_a_crash() -> None:
    # Given a program that has used up almost all of its stack
    value = nested(150, WRAPS["pairs"])
    payload = encode(value)

    def descend(function: Any, argument: Any) -> None:
        try:
            descend(function, argument)
        except RecursionError:
            function(argument)

    # When it encodes or decodes there, then it succeeds or gets our error
    for function, argument in ((encode, value), (decode, payload)):
        with contextlib.suppress(EncodingError, RecursionError):
            descend(function, argument)


def test_what_version_1_wrote_is_read_for_ever(without: Any) -> None:
    """The golden file holds one encoded list of two: GOLDEN_VALUE and GOLDEN_FOREIGN, as of format 1."""
    # Given the file, and none of the libraries
    without("numpy", "pandas", "bson")
    # When it is read
    values, others = decode(GOLDEN.read_bytes())
    # Then each value is what it was
    assert same(values, GOLDEN_VALUE)
    assert same(others, GOLDEN_FOREIGN)
    # And today's encoding of the plain ones is the same, byte for byte
    assert encode(GOLDEN_VALUE) in GOLDEN.read_bytes()


def test_decimals_do_not_depend_on_the_context() -> None:
    with decimal.localcontext(decimal.Context(prec=3, traps=[decimal.Inexact, decimal.InvalidOperation])):
        assert same(decode(encode(Decimal("1.23456789"))), Decimal("1.23456789"))
        assert same(decode(encode(Decimal("sNaN"))), Decimal("sNaN"))
