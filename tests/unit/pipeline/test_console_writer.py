"""Records on the console."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import ConfigurationError, Pipeline
from resilient_exporters.pipeline.catalogue import find
from resilient_exporters.pipeline.formatters import BaseFormatter, JsonExportFormatter
from resilient_exporters.pipeline.writers import ConsoleWriter


def printed(records: list[Any], capfd: Any, formatter: BaseFormatter | None = None, **options: Any) -> str:
    Pipeline(records, writer=ConsoleWriter(**options), formatter=formatter).run()
    out: str = capfd.readouterr().out
    return out


@pytest.mark.parametrize("number", [0, 1, 2500])
def test_json_lines(number: int, capfd: Any) -> None:
    records = [{"n": n, "text": "é"} for n in range(number)]
    out = printed(records, capfd)
    assert [json.loads(line) for line in out.splitlines()] == records
    assert out.endswith("}\n") or number == 0


@pytest.mark.parametrize("number", [0, 1, 2500])
def test_a_json_list_is_valid_with_any_number_of_records(number: int, capfd: Any) -> None:
    records = [{"n": n} for n in range(number)]
    assert json.loads(printed(records, capfd, JsonExportFormatter(jsonlines=False))) == records


def test_pretty_print_indents(capfd: Any) -> None:
    assert printed([{"b": 1, "a": 2}], capfd, pretty_print=True) == '{\n  "a": 2,\n  "b": 1\n}\n'


def test_old_options_are_taken() -> None:
    options = {"items_per_buffer_write": 10, "compression": "gz", "write_buffer_options": {}, "check_consistency": True}
    assert find("writer", "exporters.writers.console_writer.ConsoleWriter") is ConsoleWriter
    assert ConsoleWriter({"options": options}).options == options


def test_a_resume_goes_on_with_the_document(tmp_path: Path, capfd: Any) -> None:
    """Nothing of the failed batch was printed, and there is one list."""
    records: list[Any] = [{"n": n} for n in range(10)]
    broken = [*records[:7], "no record", *records[8:]]

    def pipeline(source: list[Any], resume: str | None) -> Pipeline:
        from resilient_exporters.pipeline.readers import IterableReader

        return Pipeline(
            IterableReader(source, batch_size=2),
            writer=ConsoleWriter(),
            formatter=JsonExportFormatter(jsonlines=False),
            resume=resume,
        )

    first = pipeline(broken, None)
    with pytest.raises(Exception, match="no mapping"):
        first.run()
    pipeline(records, first.persistence.job).run()
    assert json.loads(capfd.readouterr().out) == records


def test_formats_that_are_no_text_are_refused() -> None:
    class Whole(BaseFormatter):
        whole = True

    with pytest.raises(ConfigurationError, match="Whole"):
        Pipeline([{"n": 1}], writer=ConsoleWriter(), formatter=Whole()).run()


def test_it_prints_to_a_stream_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    Pipeline([{"n": 1}], writer=ConsoleWriter()).run()
    assert out.getvalue() == '{"n":1}\n'
