"""Transforms and groupers: what becomes of records, and of those that cannot be changed."""

from __future__ import annotations

import datetime as dt
import sys

import pytest

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline import BadRecordError, BaseRecord, ConfigurationError, InvalidExpression
from resilient_exporters.pipeline.bad_records import BadRecords
from resilient_exporters.pipeline.groupers import BaseGrouper, FileKeyGrouper, NoGrouper, PythonExpGrouper
from resilient_exporters.pipeline.transforms import (
    BaseTransform,
    FlatsonTransform,
    JQTransform,
    NoTransform,
    PythonexpTransform,
    PythonMapTransform,
)


def made(stage: BaseTransform, *records: dict) -> list[dict]:
    return [dict(record) for record in stage.transform_batch(BaseRecord(record) for record in records)]


def groups(stage: BaseGrouper, *records: dict) -> list[tuple]:
    return [record.group_membership for record in stage.group_batch(BaseRecord(record) for record in records)]


def test_no_transform_changes_nothing():
    assert made(NoTransform(), {"a": 1}) == [{"a": 1}]


def test_pythonexp_transform_changes_records_in_order():
    stage = PythonexpTransform(
        python_expressions=[
            "item.update(total=item['price'] * 2)",
            "item.update(text=str(item['total'])) or item.pop('price')",
        ]
    )
    assert made(stage, {"price": 2}, {"price": 3}) == [{"total": 4, "text": "4"}, {"total": 6, "text": "6"}]


def test_pythonexp_transform_keeps_the_record_and_its_group():
    record = BaseRecord(a=1)
    record.group_membership = ("x",)
    (found,) = PythonexpTransform(python_expressions=["item.update(b=2)"]).transform_batch([record])
    assert found is record


def test_python_map_transform_makes_a_new_record():
    stage = PythonMapTransform(map="{**item, 'name': item['name'].title(), 'tags': [t for t in item['tags'] if t]}")
    assert made(stage, {"name": "joe", "tags": ["a", ""]}) == [{"name": "Joe", "tags": ["a"]}]


def test_what_is_no_record_is_a_bad_one():
    stage = PythonMapTransform(map="item.get('x')")
    with pytest.raises(BadRecordError, match="gave a int, not a dict"):
        made(stage, {"x": 1})
    stage.bad_records = BadRecords("skip")
    assert made(stage, {"x": 1}, {"x": {"y": 1}}, {}) == [{"y": 1}]
    assert stage.bad_records.count == {"transform": 2}


@pytest.mark.parametrize(
    "make",
    [
        lambda: PythonexpTransform(python_expressions=["item.update(a=open('/etc/passwd'))"]),
        lambda: PythonMapTransform(map="item.__class__"),
        lambda: PythonExpGrouper(python_expressions=["().__class__"]),
    ],
)
def test_hostile_expressions_are_refused(make):
    with pytest.raises(InvalidExpression, match="is not allowed"):
        make()


def test_jq_transform_makes_records():
    stage = JQTransform(jq_filter="{name: .n, city: .place.city}")
    assert made(stage, {"n": "x", "place": {"city": "Bilbao"}}) == [{"name": "x", "city": "Bilbao"}]


@pytest.mark.parametrize(
    ("program", "records"),
    [
        ("select(.n > 1)", [{"n": 2}]),
        ("if .n > 1 then . else null end", [{"n": 2}]),
        (".n | tojson | {text: .}", [{"text": "1"}, {"text": "2"}]),
        ("tojson", [{"n": 1}, {"n": 2}]),
        ("., {again: .n}", [{"n": 1}, {"again": 1}, {"n": 2}, {"again": 2}]),
        ("empty", []),
        ("{env: .n}", [{"env": 1}, {"env": 2}]),
    ],
)
def test_jq_results(program, records):
    if "env" in program:
        program = program.replace("env", '"env"')
    assert made(JQTransform(jq_filter=program), {"n": 1}, {"n": 2}) == records


def test_jq_drops_are_counted():
    stage = JQTransform(jq_filter="select(.n > 1)")
    made(stage, {"n": 1}, {"n": 2}, {"n": 0})
    assert stage.dropped == 2
    assert stage.get_metadata("dropped") == 2
    other = JQTransform(jq_filter=".")
    other.set_state(stage.get_state())
    assert other.dropped == 2


def test_jq_gets_times_as_text():
    assert made(JQTransform(jq_filter="{t: .t}"), {"t": dt.datetime(2024, 1, 2)}) == [{"t": "2024-01-02T00:00:00"}]


def test_jq_results_that_are_no_records():
    stage = JQTransform(jq_filter=".n")
    with pytest.raises(BadRecordError, match="gave a int, not an object"):
        made(stage, {"n": 1})
    with pytest.raises(BadRecordError, match="Cannot iterate"):
        made(JQTransform(jq_filter=".n[]"), {"n": 1})


@pytest.mark.parametrize(
    "program", ["{", "nothing(.)", "env", "$ENV.HOME", "{a: env.HOME}", 'import "a" as a; .', "input", "[inputs]"]
)
def test_jq_programs_that_are_refused(program):
    with pytest.raises(ConfigurationError, match="jq_filter="):
        JQTransform(jq_filter=program)


def test_jq_fields_may_have_the_names_of_what_is_refused():
    made = list(JQTransform(jq_filter="{env: .n, input : .n}").transform(BaseRecord(n=1)))
    assert made == [{"env": 1, "input": 1}]
    for program in ("{(env|keys[0]): 1}", "{a: env}", "[.n, env]", "{n, halt: 1}", ".[env:2]"):
        with pytest.raises(ConfigurationError, match="is not allowed"):
            JQTransform(jq_filter=program)


def test_jq_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "jq", None)
    with pytest.raises(MissingModuleError, match=r"resilient-exporters\[jq\]"):
        JQTransform(jq_filter=".")


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}},
        "skills": {"type": "array", "items": {"type": "string"}},
        "joined": {"type": "array", "flatson_serialize": {"method": "join_values"}},
        "first": {"type": "array", "flatson_serialize": {"method": "extract_first"}},
        "pairs": {"type": "array", "flatson_serialize": {"method": "extract_key_values"}},
    },
}


def test_flatson_transform_flattens_by_the_schema():
    stage = FlatsonTransform(flatson_schema=SCHEMA)
    record = {
        "name": "Ana", "address": {"city": "Paris", "street": "Rue de Sèvres", "zip": 1},
        "skills": ["a", "b"],
        "else": 1, "joined": ["a", 1], "first": [5, 6],
        "pairs": [{"name": "x", "value": 1}, {"name": "y", "value": "z"}],
    }  # fmt: skip
    assert stage.fieldnames == ["address.city", "address.street", "first", "joined", "name", "pairs", "skills"]
    assert made(stage, record) == [
        {
            "address.city": "Paris", "address.street": "Rue de Sèvres", "first": 5, "joined": "a,1", "name": "Ana",
            "pairs": "x:1,y:z", "skills": '["a","b"]',
        }
    ]  # fmt: skip
    assert made(stage, {"name": None, "first": [], "address": 5}) == [dict.fromkeys(stage.fieldnames)]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({}, "give the schema of an object"),
        ({"type": "array", "properties": {}}, "give the schema of an object"),
        ({"properties": {"a": 5}}, "a is 5: give a schema"),
        (
            {"properties": {"a": {"type": "array", "flatson_serialize": {"method": "join_value"}}}},
            "join_value .did you mean join_values",
        ),
    ],
)
def test_flatson_schemas_that_are_none(schema, text):
    with pytest.raises(ConfigurationError, match=text):
        FlatsonTransform(flatson_schema=schema)


def test_no_grouper_makes_no_groups():
    assert groups(NoGrouper(), {"a": 1}) == [()]


def test_file_key_grouper():
    stage = FileKeyGrouper(keys=["country", "place.city"])
    found = groups(stage, {"country": "es", "place": {"city": "B"}}, {"country": None}, {"place": 5}, {"country": 0})
    assert found == [("es", "B"), ("unknown", "unknown"), ("unknown", "unknown"), (0, "unknown")]
    (record,) = stage.group_batch([BaseRecord(country="es")])
    assert record.group_key == ["country", "place.city"]


def test_python_exp_grouper():
    stage = PythonExpGrouper(python_expressions=["item['t'][:4]", "item['n'] % 2"])
    assert groups(stage, {"t": "2024-01", "n": 3}, {"t": "2025-01", "n": 2}) == [("2024", 1), ("2025", 0)]


def test_what_cannot_name_a_group_is_a_bad_record():
    stage = FileKeyGrouper(keys=["k"])
    stage.bad_records = BadRecords("skip")
    assert groups(stage, {"k": [1]}, {"k": "a"}) == [("a",)]
    assert stage.bad_records.count == {"grouper": 1}
