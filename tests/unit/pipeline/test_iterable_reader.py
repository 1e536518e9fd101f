"""Any iterable as a source, in code and from a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from resilient_exporters.pipeline import BadRecordError, BasicExporter, Pipeline, check_for_errors
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
