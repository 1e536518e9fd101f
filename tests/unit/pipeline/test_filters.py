"""Filters: what passes, what does not, and what a resume knows of it."""

from __future__ import annotations

import decimal
import tracemalloc

import pytest

from resilient_exporters.pipeline import (
    BadRecordError,
    BaseRecord,
    ConfigCheckError,
    ConfigurationError,
    InvalidExpression,
    InvalidOperator,
    Pipeline,
    check_for_errors,
)
from resilient_exporters.pipeline.bad_records import BadRecords
from resilient_exporters.pipeline.filters import (
    BaseFilter,
    DupeFilter,
    KeyValueFilter,
    KeyValueRegexFilter,
    NoFilter,
    PythonexpFilter,
)
from resilient_exporters.pipeline.persistence import SqlitePersistence
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.testing import RecordingExporter


def passed(stage: BaseFilter, *records: dict) -> list[dict]:
    return [dict(record) for record in stage.filter_batch(BaseRecord(record) for record in records)]


def test_no_filter_lets_all_pass():
    assert passed(NoFilter(), {"a": 1}, {}) == [{"a": 1}, {}]


@pytest.mark.parametrize(
    ("key", "item", "passes"),
    [
        ({"name": "a", "value": 1}, {"a": 1}, True),
        ({"name": "a", "value": 1}, {"a": "1"}, False),
        ({"name": "a", "value": 1}, {}, False),
        ({"name": "a.b", "value": 1}, {"a": {"b": 1}}, True),
        ({"name": "a.b", "value": 1}, {"a.b": 1}, False),
        ({"name": "a.b", "value": 1}, {"a": 1}, False),
        ({"name": "a", "value": None}, {"a": None}, True),
        ({"name": "a", "value": ["x", "y"], "operator": "in"}, {"a": "x"}, True),
        ({"name": "a", "value": ["x", "y"], "operator": "in"}, {"a": "z"}, False),
        ({"name": "a", "value": "xyz", "operator": "in"}, {"a": "yz"}, True),
        ({"name": "a", "value": "x", "operator": "contains"}, {"a": "axa"}, True),
        ({"name": "a", "value": "x", "operator": "contains"}, {"a": ["x"]}, True),
        ({"name": "a", "value": "x", "operator": "contains"}, {"a": ["y"]}, False),
        ({"name": "a", "value": "x+$", "operator": "re_match"}, {"a": "xx"}, True),
        ({"name": "a", "value": "x+$", "operator": "re_match"}, {"a": "yx"}, False),
        ({"name": "a", "value": "x", "operator": "re_match"}, {"a": None}, False),
    ],
)
def test_key_value_filter(key, item, passes):
    assert bool(passed(KeyValueFilter(keys=[key]), item)) is passes


def test_all_keys_must_hold():
    stage = KeyValueFilter(keys=[{"name": "a", "value": 1}, {"name": "b", "value": 2}])
    assert passed(stage, {"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 0, "b": 2}) == [{"a": 1, "b": 2}]
    assert stage.filtered_out == 2
    assert stage.get_metadata("filtered_out") == 2


def test_an_empty_separator_makes_names_keys():
    stage = KeyValueFilter(keys=[{"name": "a.b", "value": 1}], nested_field_separator="")
    assert passed(stage, {"a.b": 1}, {"a": {"b": 1}}) == [{"a.b": 1}]


def test_an_unknown_operator_is_named():
    with pytest.raises(InvalidOperator, match=r"operator contain .did you mean contains.. is none of ==, contains, in"):
        KeyValueFilter(keys=[{"name": "a", "value": 1, "operator": "contain"}])


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ([{"name": "a"}], "has not the form {name, value, operator}"),
        ([{"name": "a", "value": 1, "valu": 2}], "unknown: valu .did you mean value"),
        ([{"name": 1, "value": 1}], "has not the form"),
        ([{"name": "a", "value": 5, "operator": "in"}], "give a list, or a text"),
        ([{"name": "a", "value": "(", "operator": "re_match"}], "is no regular expression"),
    ],
)
def test_keys_that_are_none(keys, text):
    with pytest.raises(ConfigurationError, match=text):
        KeyValueFilter(keys=keys)


def test_regex_filter_matches_texts_from_the_beginning():
    stage = KeyValueRegexFilter(keys=[{"name": "place.code", "value": r"\d{3}"}])
    records = [{"place": {"code": code}} for code in ("123x", "x123", 1234, None, "12")]
    assert passed(stage, *records, {}) == [{"place": {"code": "123x"}}, {"place": {"code": 1234}}]


def test_regex_filter_ends_soon_on_a_hostile_text():
    # Given a pattern that a text can match in 2^40 ways
    stage = KeyValueRegexFilter(keys=[{"name": "a", "value": "(a|a)*$"}])
    stage.bad_records = BadRecords("skip")

    # When such a text comes, then the record is a bad one, and the next one is judged
    assert passed(stage, {"a": "a" * 60 + "b"}, {"a": "a"}) == [{"a": "a"}]
    assert stage.bad_records.count == {"filter": 1}


def test_pythonexp_filter():
    stage = PythonexpFilter(python_expression="item['n'] % 2 == 0 and item['s'].startswith('a')")
    assert passed(stage, {"n": 2, "s": "ab"}, {"n": 1, "s": "a"}, {"n": 2, "s": "b"}) == [{"n": 2, "s": "ab"}]


def test_pythonexp_filter_with_imports():
    stage = PythonexpFilter(python_expression="dt.date(2024, 1, item['d']).weekday() == 0", imports={"dt": "datetime"})
    assert passed(stage, {"d": 1}, {"d": 2}) == [{"d": 1}]
    with pytest.raises(InvalidExpression, match="only calendar, datetime"):
        PythonexpFilter(python_expression="1", imports={"os": "os"})


def test_fault_8_an_expression_is_no_python():
    # The old system ran this: any file of the user could be read by a configuration
    hostile = {"name": "PythonexpFilter", "options": {"python_expression": "__import__('os').getcwd()"}}
    with pytest.raises(ConfigCheckError) as caught:
        check_for_errors({"reader": {"name": "IterableReader"}, "writer": {"name": "ConsoleWriter"}, "filter": hostile})
    assert "__import__" in caught.value.errors["filter"]
    assert "is not allowed" in caught.value.errors["filter"]


def test_a_record_that_cannot_be_judged_is_a_bad_one():
    stage = PythonexpFilter(python_expression="item['n'] > 1")
    with pytest.raises(BadRecordError, match="KeyError: 'n'"):
        passed(stage, {"a": 1})
    stage.bad_records = BadRecords("skip")
    assert passed(stage, {"a": 1}, {"n": 2}) == [{"n": 2}]
    assert stage.bad_records.count == {"filter": 1}
    assert stage.filtered_out == 0


def test_dupe_filter_lets_each_key_pass_once():
    stage = DupeFilter(key_field="k")
    keys = [
        "a",
        "b",
        "a",
        1,
        1.0,
        True,
        "1",
        1.5,
        1.5,
        10**30,
        10**30,
        "\ud800",
        "\ud800",
        (1, 2),
        (1, 2),
        b"a",
        decimal.Decimal(2),
    ]
    found = [record["k"] for record in passed(stage, *({"k": key} for key in keys))]
    assert found == ["a", "b", 1, "1", 1.5, 10**30, "\ud800", (1, 2), b"a", decimal.Decimal(2)]


def test_records_without_key_pass_and_are_counted(caplog):
    stage = DupeFilter()
    assert len(passed(stage, {"a": 1}, {"_key": None}, {"a": 1})) == 3
    assert stage.get_metadata("without_key") == 3
    assert caplog.text.count("without _key") == 1


def test_dupe_filter_goes_on_from_its_journal():
    # Given a filter that saw keys in two batches
    first = DupeFilter(key_field="k")
    passed(first, *({"k": number} for number in range(3000)))
    one = first.drain_journal()
    passed(first, *({"k": number} for number in range(2000, 5000)))
    two = first.drain_journal()
    assert first.drain_journal() == []

    # When another one gets what was kept of it
    second = DupeFilter(key_field="k")
    second.replay_journal(one)
    second.replay_journal(two)
    second.set_state(first.get_state())

    # Then it knows all of them, and no more than them
    assert passed(second, *({"k": number} for number in range(4990, 5010))) == [{"k": n} for n in range(5000, 5010)]
    assert second.filtered_out == 1000 + 10


def test_dupe_filter_is_frugal():
    stage = DupeFilter(key_field="k")
    tracemalloc.start()
    try:
        for number in range(10_000):
            stage.filter(BaseRecord(k=number))
        stage.drain_journal()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 10_000 * 50


def test_fault_14_duplicates_across_a_resume(tmp_path):
    # Given a run that fails in the third batch, with keys that come again in later batches
    records = [{"_key": number % 70, "n": number} for number in range(200)]
    ended = {"at": 130}

    def source(item):
        if item["n"] >= ended["at"]:
            raise OSError("the link is down")
        return item

    exporter = RecordingExporter()
    store = tmp_path / "jobs.db"
    first = Pipeline(
        IterableReader(records, batch_size=50), source, DupeFilter(), writer=exporter,
        persistence=SqlitePersistence(database=str(store)), work_dir=tmp_path / "work",
    )  # fmt: skip
    with pytest.raises(BadRecordError, match="the link is down"):
        first.run()
    job = first.persistence.job

    # When it is resumed
    ended["at"] = 1000
    second = Pipeline(
        IterableReader(records, batch_size=50), source, DupeFilter(), writer=exporter, resume=job,
        persistence=SqlitePersistence(database=str(store)), work_dir=tmp_path / "work",
    )  # fmt: skip
    second.run()
    exporter.flush(timeout=30)
    exporter.close()

    # Then each key went out once, over both runs
    assert sorted(record["_key"] for record in exporter.records) == list(range(70))
