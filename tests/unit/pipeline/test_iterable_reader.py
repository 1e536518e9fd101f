"""Any iterable as a source, in code and from a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.pipeline import BadRecordError, BasicExporter, Pipeline, check_for_errors
from resilient_exporters.pipeline.errors import ConfigCheckError
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.testing import RecordingExporter
from tests.pipelines import Bomb, LinesWriter, written

CALLS: list[str] = []
NO_FUNCTION = 3


def records() -> Iterator[dict[str, int]]:
    CALLS.append("called")
    return ({"n": n} for n in range(25))


def section(**options: Any) -> dict[str, Any]:
    return {"name": "IterableReader", "options": options}


def test_a_function_gives_the_records_of_a_configuration(tmp_path: Any) -> None:
    # Given a configuration that names a function, and a run of it that fails
    configuration = {
        "reader": section(function=f"{__name__}.records", batch_size=10),
        "writer": {"name": "tests.pipelines.LinesWriter", "options": {"path": str(tmp_path / "o.jl")}},
    }
    CALLS.clear()
    assert check_for_errors(configuration) == {}
    assert CALLS == []
    one = BasicExporter(configuration)
    assert isinstance(one.writer, LinesWriter)
    one.writer.bombs = {"write": Bomb(15)}
    with pytest.raises(OSError, match="disk full"):
        one.run()

    # When it is resumed, then the function is called anew, and what was read is left out
    BasicExporter.from_persistence_configuration(one.uri).run()
    assert written(tmp_path / "o.jl") == list(range(25))
    assert CALLS == ["called", "called"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Option function is missing"),
        ({"function": "no.such"}, "function='no.such' cannot be loaded"),
        ({"function": f"{__name__}.NO_FUNCTION"}, "is no function but 3"),
        ({"function": f"{__name__}.nothing"}, "cannot be loaded"),
    ],
)
def test_what_is_no_function_is_refused(options: dict[str, Any], said: str) -> None:
    configuration = {"reader": section(**options), "writer": {"name": "ConsoleWriter"}}
    errors = check_for_errors(configuration, raise_exception=False)
    assert said in errors["reader"]


def test_what_is_no_record_is_said_with_its_place() -> None:
    with pytest.raises(BadRecordError, match=r"a bad record at record 2: no mapping: 'text'"):
        Pipeline([{"n": 1}, "text"], writer=RecordingExporter()).run()


def taken(reader: IterableReader) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while not reader.is_finished():
        found += reader.get_next_batch()
    return found


@given(number=st.integers(0, 30), batch=st.integers(1, 12), cut=st.integers(0, 30))
def test_a_resume_leaves_out_what_was_read(number: int, batch: int, cut: int) -> None:
    records = [{"n": one} for one in range(number)]
    first = IterableReader(records, batch_size=batch)
    found: list[dict[str, Any]] = []
    while len(found) < cut and not first.is_finished():
        for record in first.get_next_batch():
            found.append(record)
            if len(found) == cut:
                break
    second = IterableReader(iter(records), batch_size=batch)
    second.set_last_position(first.get_last_position())
    assert found + taken(second) == records


def test_a_source_that_has_less_than_was_read_is_said(caplog: pytest.LogCaptureFixture) -> None:
    reader = IterableReader([{"n": 1}])
    reader.set_last_position({"last_read": 3})
    assert taken(reader) == []
    assert "3 records were read before; the source has 1 only now" in caplog.text


def test_a_batch_of_nothing_would_never_end() -> None:
    with pytest.raises(ConfigCheckError, match="batch_size=0"):
        IterableReader([], batch_size=0)
