"""Formatters: valid files with none, one and many records, read back by parsers that know nothing of us."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import io
import json
import sys
import xml.etree.ElementTree as ET
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow.parquet as pq
import pytest

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline import BaseRecord, ConfigurationError
from resilient_exporters.pipeline.formatters import (
    AvroExportFormatter,
    BaseFormatter,
    CSVExportFormatter,
    JsonExportFormatter,
    ParquetExportFormatter,
    XMLExportFormatter,
)

NOW = dt.datetime(2024, 2, 29, 12, 30, 5, 123456)
AWARE = NOW.replace(tzinfo=dt.timezone(dt.timedelta(hours=2)))


def written(form: BaseFormatter, *records: dict) -> bytes:
    """The file, as writers make it."""
    entries = [form.format(BaseRecord(record)) for record in records]
    if not form.whole:
        return form.header() + form.separator.join(entries) + form.footer()
    target = io.BytesIO()
    form.assemble(io.BytesIO(form.separator.join(entries)), target)
    return target.getvalue()


def avro(data: bytes) -> list[Any]:
    return list(fastavro.reader(io.BytesIO(data)))


# -- JSON --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pretty", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_list_is_valid(count, pretty):
    form = JsonExportFormatter(jsonlines=False, pretty_print=pretty)
    records = [{"n": n, "s": "città\n"} for n in range(count)]
    assert json.loads(written(form, *records)) == records
    assert form.file_extension == "json"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_lines_are_valid(count):
    form = JsonExportFormatter()
    records = [{"n": n, "s": "città\n\u2028"} for n in range(count)]
    data = written(form, *records)
    assert [json.loads(line) for line in data.split(b"\n")[:-1]] == records
    assert data.endswith(b"\n") or not count
    assert form.file_extension == "jl"


def test_json_layout_of_the_old_system():
    assert written(JsonExportFormatter(jsonlines=False), {"a": 1}, {"a": 2}) == b'[{"a":1},\n{"a":2}\n]'
    assert written(JsonExportFormatter(pretty_print=True), {"b": 1, "a": 2}) == b'{\n  "a": 2,\n  "b": 1\n}\n'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None), (float("-inf"), None), (10**40, 10**40), (0.1, 0.1),
        (Decimal("1.10"), "1.10"), (b"\xff", "/w=="),
        (NOW, "2024-02-29T12:30:05.123456"), (NOW.date(), "2024-02-29"), ({1: "a", None: 2}, {"1": "a", "null": 2}),
        ({"a", }, ["a"]), ((1, 2), [1, 2]), ("\ud800", "\ud800"), (True, True), (-0.0, -0.0),
        (1e300, 1e300), ("\x00", "\x00"),
    ],
)  # fmt: skip
def test_json_values(value, expected):
    def never(constant):
        raise AssertionError(f"{constant} is no JSON")

    for form in (JsonExportFormatter(), JsonExportFormatter(pretty_print=True)):
        assert json.loads(form.format({"v": value}), parse_constant=never) == {"v": expected}


# -- CSV ---------------------------------------------------------------------------------------------------------


def rows(data: bytes, **options) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), **options))


@pytest.mark.parametrize("titles", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_csv_is_valid(count, titles):
    form = CSVExportFormatter(fields=["n", "s"], show_titles=titles)
    found = rows(written(form, *({"n": n, "s": 'a "b", ;\r\nc', "more": 1} for n in range(count))))
    assert found == [["n", "s"]] * titles + [[str(n), 'a "b", ;\r\nc'] for n in range(count)]


def test_csv_quotes_what_is_no_number():
    form = CSVExportFormatter(fields=["a", "b", "c", "d"])
    data = written(form, {"a": 1, "b": 1.5, "c": "x", "d": None}, {})
    assert data == b'"a","b","c","d"\r\n1,1.5,"x",""\r\n"","","",""\r\n'


def test_csv_values():
    form = CSVExportFormatter(fields=["v"], show_titles=False)
    for value, expected in [
        ({"a": [1]}, '{"a":[1]}'), ([1, "x"], '[1,"x"]'), (NOW, "2024-02-29T12:30:05.123456"),
        (Decimal("1.10"), "1.10"), (b"\xff", "/w=="), (True, "True"), (float("nan"), "nan"), (10**30, str(10**30)),
        ("\ud800", "\\ud800"), ("ü", "ü"),
        ('say "x"', 'say "x"'),
    ]:  # fmt: skip
        assert rows(form.format({"v": value})) == [[expected]]


def test_csv_fields_of_a_schema_are_sorted():
    form = CSVExportFormatter(schema={"properties": {"b": {}, "a": {}}}, delimiter=";")
    assert written(form, {"a": 1, "b": 2}) == b'"a";"b"\r\n1;2\r\n'
    assert CSVExportFormatter(schema={"properties": {"b": {}}}, fields=["z"]).fields == ["z"]


@pytest.mark.parametrize(
    "options", [{}, {"fields": []}, {"schema": {}}, {"fields": ["a"], "delimiter": ",,"}, {"schema": {"properties": 5}}]
)
def test_csv_options_that_cannot_be(options):
    with pytest.raises(ConfigurationError):
        CSVExportFormatter(**options)


def test_csv_formulas_are_escaped_on_request():
    record = {"a": "=1+1", "b": "-5", "c": -5}
    plain = CSVExportFormatter(fields=["a", "b", "c"], show_titles=False)
    safe = CSVExportFormatter(fields=["a", "b", "c"], show_titles=False, escape_formulas=True)
    assert rows(plain.format(record)) == [["=1+1", "-5", "-5"]]
    assert rows(safe.format(record)) == [["'=1+1", "'-5", "-5"]]


# -- XML ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3])
def test_xml_is_valid(count):
    root = ET.fromstring(written(XMLExportFormatter(), *({"n": n, "s": "a<b>&\"'\r\n\tc"} for n in range(count))))
    assert root.tag == "root"
    assert [(item.tag, item.findtext("n"), item.findtext("s")) for item in root] == [
        ("item", str(n), "a<b>&\"'\r\n\tc") for n in range(count)
    ]


def test_xml_layout():
    form = XMLExportFormatter(item_name="row", root_name="rows", fields_order=["z", "none"], attr_type=False)
    assert written(form, {"a": 1, "z": None}).decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n<rows>\n<row><z></z><a>1</a></row>\n</rows>\n'
    )


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("x", "str", "x"), (1, "int", "1"), (1.5, "float", "1.5"), (True, "bool", "true"), (None, "null", None),
        (NOW, "datetime", NOW.isoformat()), (NOW.date(), "date", "2024-02-29"), (Decimal("1.10"), "number", "1.10"),
        (b"\xff\x00", "base64", base64.b64encode(b"\xff\x00").decode()), ("a]]>b", "str", "a]]>b"),
    ],
)  # fmt: skip
def test_xml_values(value, kind, text):
    element = ET.fromstring(written(XMLExportFormatter(), {"v": value})).find("item/v")
    assert element is not None
    assert (element.get("type"), element.text) == (kind, text)


def test_xml_nested_values_and_odd_keys():
    record: dict[str, Any] = {
        "map": {"a b": 1, "1x": 2, '<&"\n>': 3, "x:y": 4, "": 5, "città": 6, "\u00aa": 7},
        "list": [1, ["x"]],
    }
    item = ET.fromstring(written(XMLExportFormatter(), record)).find("item")
    assert item is not None
    keys = [element.get("name", element.tag) for element in item.findall("map/*")]
    assert keys == list(record["map"])
    assert item.findtext("list/item[1]") == "1"
    assert item.findtext("list/item[2]/item") == "x"


def test_xml_characters_that_it_cannot_hold_are_replaced_and_counted():
    form = XMLExportFormatter()
    text = "".join(map(chr, range(32))) + "\ufffe\uffff\ud800" + "\U0001f600"
    element = ET.fromstring(written(form, {"v": text, "a\x00": 1})).find("item")
    assert element is not None
    assert (
        element.findtext("v")
        == "\ufffd" * 9 + "\t\n" + "\ufffd" * 2 + "\r" + "\ufffd" * 18 + "\ufffd" * 3 + "\U0001f600"
    )
    assert form.get_metadata("replaced_characters") == 33


@pytest.mark.parametrize("name", ["", "a b", "1", "a:b", "<x>", "\u00d7"])
def test_xml_names_that_are_none(name):
    with pytest.raises(ConfigurationError, match="item_name="):
        XMLExportFormatter(item_name=name)


# -- Parquet and Avro --------------------------------------------------------------------------------------------

MIXED: list[dict[str, Any]] = [
    {"i": 1, "f": 1, "s": "città", "b": True, "t": NOW, "m": "x", "l": [1, 2], "d": {"a": 1}, "y": b"\xff"},
    {"i": None, "f": 1.5, "s": None, "new": 7, "m": 5, "l": [], "d": {"a": 2, "b": "z"}},
    {"i": 3, "m": None, "t": NOW},
]


@pytest.mark.parametrize("count", [0, 1, 25_000])
def test_parquet_is_valid(count):
    data = written(ParquetExportFormatter(), *({"n": n, "s": str(n)} for n in range(count)))
    table = pq.read_table(io.BytesIO(data))
    assert table.num_rows == count
    assert table.to_pylist()[-1:] == [{"n": count - 1, "s": str(count - 1)}][:count]


def test_parquet_types():
    table = pq.read_table(io.BytesIO(written(ParquetExportFormatter(), *MIXED)))
    assert table.column("i").to_pylist() == [1, None, 3]
    assert table.column("f").to_pylist() == [1.0, 1.5, None]
    assert table.column("m").to_pylist() == ["x", "5", None]
    assert table.column("new").to_pylist() == [None, 7, None]
    assert table.column("t").to_pylist() == [NOW, None, NOW]
    assert table.column("l").to_pylist() == [[1, 2], [], None]
    assert table.column("y").to_pylist() == [b"\xff", None, None]
    assert table.column("d").to_pylist()[1] == {"a": 2, "b": "z"}


def test_parquet_types_that_change_late():
    # Given a key that is a number for a whole batch of rows, and a text after it; and another that becomes a float
    records: list[dict[str, Any]] = [{"k": n, "x": n} for n in range(10_000)] + [
        {"k": "late", "x": 0.5},
        {"k": [1], "x": None},
    ]
    table = pq.read_table(io.BytesIO(written(ParquetExportFormatter(), *records)))
    assert table.column("k").to_pylist()[0] == "0"
    assert table.column("k").to_pylist()[-2:] == ["late", "[1]"]
    assert table.column("x").to_pylist()[-3:] == [9999.0, 0.5, None]


def test_parquet_odd_values():
    records: list[dict[Any, Any]] = [{"a": 10**30, "b": {}, "c": None, "d": "\ud800", 5: 1, "e": Decimal("1.10")}]
    (row,) = pq.read_table(io.BytesIO(written(ParquetExportFormatter(), *records))).to_pylist()
    assert row == {"a": str(10**30), "b": "{}", "c": None, "d": "\\ud800", "5": 1, "e": Decimal("1.10")}


@pytest.mark.parametrize("count", [0, 1, 300])
def test_avro_is_valid(count):
    records = [{"n": n, "s": str(n)} for n in range(count)]
    assert avro(written(AvroExportFormatter(), *records)) == records


def test_avro_types():
    found = avro(written(AvroExportFormatter(), *MIXED))
    assert [row["i"] for row in found] == [1, None, 3]
    assert [row["f"] for row in found] == [1, 1.5, None]
    assert [row["m"] for row in found] == ["x", 5, None]
    assert [row["new"] for row in found] == [None, 7, None]
    assert [row["t"] for row in found] == [NOW, None, NOW]
    assert [row["l"] for row in found] == ["[1,2]", "[]", None]
    assert found[0]["y"] == b"\xff"
    assert found[1]["d"] == '{"a":2,"b":"z"}'


def test_avro_odd_values():
    records: list[dict[str, Any]] = [
        {"a b": 1, "a-b": 2, "1": 3, "": 4, "big": 10**30, "day": NOW.date(), "aware": AWARE, "mixed": NOW,
         "dec": Decimal("1.10")},
        {"mixed": 5, "dec": "\ud800"},
        {"mixed": AWARE},
    ]  # fmt: skip
    reader: Any = fastavro.reader(io.BytesIO(written(AvroExportFormatter(), *records)))
    one, two, three = list(reader)
    assert (one["a_b"], one["a_b_"], one["_1"], one["_"], one["big"]) == (1, 2, 3, 4, str(10**30))
    assert (one["day"], one["aware"], one["dec"]) == (NOW.date(), AWARE, "1.10")
    assert (one["mixed"], two["mixed"], three["mixed"]) == (NOW.isoformat(), 5, AWARE.isoformat())
    assert two["dec"] == "\\ud800"
    assert [field["doc"] for field in reader.writer_schema["fields"]][:2] == ["a b", "a-b"]


def test_avro_by_a_schema():
    schema = {"type": "record", "name": "r", "fields": [{"name": "n", "type": "int"}]}
    data = written(AvroExportFormatter(schema=schema), {"n": 1, "more": 2})
    assert avro(data) == [{"n": 1}]
    with pytest.raises(ConfigurationError, match="no Avro schema"):
        AvroExportFormatter(schema={"type": "nothing"})


@pytest.mark.parametrize(
    ("cls", "package", "extra"),
    [(ParquetExportFormatter, "pyarrow", "parquet"), (AvroExportFormatter, "fastavro", "avro")],
)
def test_packages_that_are_missing_are_named(cls, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingModuleError, match=rf"resilient-exporters\[{extra}\]"):
        cls()
