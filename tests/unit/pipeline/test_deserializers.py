"""Records from bytes: exact values, bad ones in their place, the same units whatever is left out."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import fastavro
import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resilient_exporters.pipeline.deserializers import (
    AvroDeserializer,
    BaseDeserializer,
    CSVDeserializer,
    JsonLinesDeserializer,
    MessagePackDeserializer,
    TextLinesDeserializer,
    Unreadable,
    deserializer_for,
)
from resilient_exporters.pipeline.errors import ConfigCheckError, UnreadableStreamError


def blocks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def units(deserializer: BaseDeserializer, data: bytes, size: int = 7, skip: int = 0) -> list[Any]:
    return [one for lot in deserializer.lots(blocks(data, size), skip) for one in lot.found]


def bad(found: list[Any]) -> list[int]:
    return [number for number, one in enumerate(found) if isinstance(one, Unreadable)]


# -- JSON lines ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**80), 2**80) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(records=st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=6), size=st.integers(1, 200))
def test_values_are_those_that_json_gives(records: list[dict[str, Any]], size: int) -> None:
    for ascii_only in (True, False):
        texts = [json.dumps(record, ensure_ascii=ascii_only).encode(errors="surrogatepass") for record in records]
        data = b"".join(text + b"\n" for text in texts)
        found = units(JsonLinesDeserializer(), data, size)
        assert repr(found) == repr([json.loads(text) for text in texts])


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN}', '{"a": [-Infinity, 1e999]}', '{"a": "\\ud800"}', '{"a": 1e400}', '{"a": -0}', '{"a": -0.0}',
     '{"a": 18446744073709551616}', '{"a": 1' + "0" * 4000 + "}", '{"a": 5e-324, "a": 2}', '\ufeff{"a": 1}'],
)  # fmt: skip
def test_values_beyond_the_standard_too(text: str) -> None:
    assert repr(units(JsonLinesDeserializer(), text.encode() + b"\n")) == repr([json.loads(text.encode())])


def test_a_bad_line_stands_in_its_place() -> None:
    found = units(JsonLinesDeserializer(), b'{"a": 1}\n\n{"a": \n[1]\n{"a": "\xff"}\n{"a":1}{"b":2}\n{"a": 2}\n{"a"')
    assert bad(found) == [2, 3, 4, 5, 7]
    assert [one for one in found if isinstance(one, dict)] == [{"a": 1}, {"a": 2}]
    assert found[1] is None
    assert found[2].data == b'{"a": '
    assert "no object but a list" in found[3].error


def test_the_last_line_needs_no_end_and_windows_ends_are_taken() -> None:
    assert units(JsonLinesDeserializer(), b'{"a": 1}\r\n\r\n{"a": 2}') == [{"a": 1}, None, {"a": 2}]


def test_a_line_beyond_all_bounds_is_passed_over() -> None:
    data = b'{"a": 1}\n{"a": "' + b"x" * 5000 + b'"}\n{"a": 2}\n{"b": "' + b"y" * 5000
    for size in (10, 999, 20_000):
        found = units(JsonLinesDeserializer(max_line=1000), data, size)
        assert bad(found) == [1, 3]
        assert len(found[1].data) <= 200
        assert "has 5009 bytes, max_line=1000" in found[1].error
        assert [found[0], found[2]] == [{"a": 1}, {"a": 2}]


def test_deserialize_raises_where_nobody_puts_bad_records_aside() -> None:
    assert list(JsonLinesDeserializer().deserialize([b'{"a": 1}\n\n{"a": 2}'])) == [{"a": 1}, {"a": 2}]
    with pytest.raises(UnreadableStreamError, match="no object but a int"):
        list(JsonLinesDeserializer().deserialize([b'{"a": 1}\n3\n']))


def test_lines_of_text() -> None:
    found = units(TextLinesDeserializer(encoding="latin-1"), b"caf\xe9\r\n\nb\x0bc\n")
    assert found == [{"line": "café"}, None, {"line": "b\x0bc"}]
    assert bad(units(TextLinesDeserializer(), b"caf\xe9\nb\n")) == [0]


# -- CSV -----------------------------------------------------------------------------------------------------------

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)


@given(rows=st.lists(st.tuples(CELL, CELL, CELL), max_size=8), size=st.integers(1, 40))
@example(rows=[("a\nb", 'x"y', " ")], size=1)
def test_rows_come_as_they_were_written(rows: list[tuple[str, str, str]], size: int) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("k", "é", "m n"), *rows])
    found = units(CSVDeserializer(), text.getvalue().encode(), size)
    assert found == [dict(zip(("k", "é", "m n"), row, strict=True)) for row in rows]


def test_ragged_rows_are_bad_records() -> None:
    found = units(CSVDeserializer(), b"a,b\n1,2\n1\n1,2,3\n\n3,4\n")
    assert bad(found) == [1, 2]
    assert found[1] == Unreadable(["1"], "the row has 1 values, the header 2")
    assert [one for one in found if isinstance(one, dict)] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_half_a_row_wrong_quotes_and_bytes_that_are_no_text_are_bad_records() -> None:
    assert bad(units(CSVDeserializer(), b'a,b\n1,2\n3,"4')) == [1]
    assert bad(units(CSVDeserializer(), b'a,b\n1,"2"x\n3,4\n')) == [0]
    assert units(CSVDeserializer(strict=False), b'a,b\n1,"2"x\n') == [{"a": "1", "b": "2x"}]
    found = units(CSVDeserializer(), b"a,b\n1,\xff\n3,\xc3\xa9\n")
    assert bad(found) == [0]
    assert found[1] == {"a": "3", "b": "é"}


def test_csv_options() -> None:
    assert units(CSVDeserializer(fields=["x", "y"], delimiter=";"), b"1;2\n") == [{"x": "1", "y": "2"}]
    assert units(CSVDeserializer(encoding="utf-16"), "a,b\n1,é\n".encode("utf-16")) == [{"a": "1", "b": "é"}]
    assert units(CSVDeserializer(), b"\xef\xbb\xbfa,b\n1,2\n") == [{"a": "1", "b": "2"}]
    with pytest.raises(ConfigCheckError, match="give one character"):
        CSVDeserializer(delimiter="||")
    with pytest.raises(ConfigCheckError, match="unknown encoding: klingon"):
        CSVDeserializer(encoding="klingon")
    with pytest.raises(UnreadableStreamError, match="names a twice: give fields"):
        units(CSVDeserializer(), b"a,b,a\n1,2,3\n")
    with pytest.raises(UnreadableStreamError, match="it is no utf-16"):
        units(CSVDeserializer(encoding="utf-16", fields=["a"]), "x\n".encode("utf-16") + b"\x00")


# -- binary --------------------------------------------------------------------------------------------------------


def test_messages_come_whole() -> None:
    records = [
        {"n": number, "b": b"\xff", "big": 2**63, "f": math.pi, "l": [1, None], 5: "int key"} for number in range(30)
    ]
    data = b"".join(map(msgpack.packb, records))
    assert units(MessagePackDeserializer(), data, 11) == records
    assert bad(units(MessagePackDeserializer(), msgpack.packb({"a": 1}) + msgpack.packb(7))) == [1]


@pytest.mark.parametrize("wrong", [b"\x82\xa1a", b"\xc1", b"\x81\xa1a\xa1\xff"], ids=["half", "no type", "no text"])
def test_what_is_no_message_ends_the_stream_after_the_good_ones(wrong: bytes) -> None:
    given_out = []
    with pytest.raises(UnreadableStreamError, match="message"):  # noqa: PT012 - what comes before counts
        for lot in MessagePackDeserializer().lots([msgpack.packb({"a": 1}) + wrong]):
            given_out += lot.found
    assert given_out == [{"a": 1}]


def avro(number: int) -> bytes:
    schema = {"type": "record", "name": "r", "fields": [{"name": "n", "type": "long"}]}
    target = io.BytesIO()
    fastavro.writer(target, schema, [{"n": one} for one in range(number)], sync_interval=500)
    return target.getvalue()


def test_avro_files() -> None:
    data = avro(2500)
    assert units(AvroDeserializer(), data, 100) == [{"n": number} for number in range(2500)]
    assert units(AvroDeserializer(), data, 100, 2400) == [{"n": number} for number in range(2400, 2500)]
    with pytest.raises(UnreadableStreamError, match="no Avro file"):
        units(AvroDeserializer(), b"Obj?")
    given_out = []
    with pytest.raises(UnreadableStreamError, match="Avro data is damaged"):  # noqa: PT012 - as above
        for lot in AvroDeserializer().lots([data[:-100]]):
            given_out += lot.found
    assert given_out == [{"n": number} for number in range(len(given_out))]
    assert 2000 < len(given_out) < 2500


# -- all -----------------------------------------------------------------------------------------------------------

SAMPLES: list[tuple[BaseDeserializer, bytes]] = [
    (JsonLinesDeserializer(max_line=50), b'{"a": 1}\n\n{"b\n{"c": "' + b"x" * 60 + b'"}\n{"d": 1e999}\n[]\n{"e": 2}'),
    (TextLinesDeserializer(), b"a\n\nb\xff\nc"),
    (CSVDeserializer(), b'a,b\n1,2\n\n1\n"3\n4",5\n6,"7"x\n8,\xff\n9,9\n1,2,3\n1,"2'),
    (MessagePackDeserializer(), b"".join(msgpack.packb({"n": n}) for n in range(9)) + b"\x05"),
    (AvroDeserializer(), avro(9)),
]


@pytest.mark.parametrize(("deserializer", "data"), SAMPLES, ids=lambda one: type(one).__name__)
def test_what_is_left_out_is_always_the_same(deserializer: BaseDeserializer, data: bytes) -> None:
    whole = [(type(one).__name__, repr(one)) for one in units(deserializer, data, 10_000)]
    assert len(whole) >= 4
    for size in (1, 3, 16, 10_000):
        for skip in range(len(whole) + 3):
            found = [(type(one).__name__, repr(one)) for one in units(deserializer, data, size, skip)]
            assert [name for name, _ in found] == [name for name, _ in whole[skip:]]
            assert [text for name, text in found if name == "dict"] == [
                text for name, text in whole[skip:] if name == "dict"
            ]


def test_one_of_your_own_needs_deserialize_only() -> None:
    class Words(BaseDeserializer):
        def deserialize(self, blocks: Any) -> Any:
            for word in b"".join(blocks).split():
                yield {"word": word} if word != b"bad" else 3

    assert units(Words(), b"one bad two", skip=1) == [Unreadable(3, "no mapping"), {"word": b"two"}]
    with pytest.raises(NotImplementedError, match="must define deserialize"):
        units(BaseDeserializer(), b"")


@pytest.mark.parametrize(
    ("name", "cls"),
    [("a.jl.gz", JsonLinesDeserializer), ("a", JsonLinesDeserializer), ("a.json", JsonLinesDeserializer),
     ("d.csv/x.jl", JsonLinesDeserializer), ("a.CSV.GZ", CSVDeserializer), ("a.tsv", CSVDeserializer),
     ("a.msgpack.zst", MessagePackDeserializer), ("a.avro", AvroDeserializer)],
)  # fmt: skip
def test_the_ending_tells_which(name: str, cls: type[BaseDeserializer]) -> None:
    found = deserializer_for(name)
    assert type(found) is cls
    assert (found.options == {"delimiter": "\t"}) == (name == "a.tsv")
