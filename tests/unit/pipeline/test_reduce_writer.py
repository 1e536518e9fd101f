"""All records reduced to one value."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import ConfigurationError, InvalidExpression, Pipeline
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.pipeline.writers import ReduceWriter

SUM = """
def reduce_function(item, accumulator=None):
    if accumulator is None:
        accumulator = 0
    return accumulator + item["n"]
"""
COUNTS = """
def reduce_function(item, accumulator=None):
    counts = accumulator or {}
    counts[item["kind"]] = counts.get(item["kind"], 0) + 1
    return counts
"""
RECORDS = [{"n": n, "kind": "odd" if n % 2 else "even"} for n in range(100)]


def largest(item: dict[str, Any], accumulator: int | None = None) -> int:
    return max(item["n"], accumulator or 0)


@pytest.mark.parametrize(
    ("options", "result"),
    [
        ({"code": SUM}, 4950),
        ({"code": SUM, "source_path": "where it came from.py"}, 4950),
        ({"code": COUNTS}, {"even": 50, "odd": 50}),
        ({"function": largest}, 99),
        ({"function": f"{__name__}:largest"}, 99),
    ],
)
def test_reduced(options: dict[str, Any], result: Any) -> None:
    writer = ReduceWriter(**options)
    report = Pipeline(RECORDS, writer=writer).run()
    assert writer.reduced_result == result
    assert report.figures["writer"]["reduced_result"] == result


def test_the_text_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "reduce.py").write_text(SUM)
    writer = ReduceWriter(source_path=str(tmp_path / "reduce.py"))
    Pipeline(RECORDS, writer=writer).run()
    assert writer.reduced_result == 4950


def test_a_resume_goes_on_with_the_accumulator() -> None:
    source: list[Any] = [*RECORDS[:50], "none"]
    first = Pipeline(IterableReader(source, batch_size=20), writer=ReduceWriter(code=SUM))
    with pytest.raises(Exception, match="no mapping"):
        first.run()
    writer = ReduceWriter(code=SUM)
    Pipeline(IterableReader(RECORDS, batch_size=20), writer=writer, resume=first.persistence.job).run()
    assert writer.reduced_result == 4950


def test_a_record_on_which_it_fails_is_a_bad_one() -> None:
    records = [*RECORDS[:10], {"m": 1}, *RECORDS[10:]]
    writer = ReduceWriter(code=SUM)
    report = Pipeline(records, writer=writer, on_bad_record="skip").run()
    assert (writer.reduced_result, report.bad, report.written) == (4950, {"writer": 1}, 100)


@pytest.mark.parametrize(
    "code",
    [
        "import os\n" + SUM,
        "def reduce_function(item, accumulator=None):\n    return item.__class__",
        "def reduce_function(item, accumulator=None):\n    return open('/etc/passwd').read()",
        "def other(item):\n    return 1",
        "def reduce_function(item",
    ],
)
def test_code_that_is_not_allowed(code: str) -> None:
    with pytest.raises(InvalidExpression):
        ReduceWriter(code=code)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give code or function"),
        ({"code": SUM, "function": largest}, "give code or function"),
        ({"function": "nothing"}, "give a callable, or a path"),
        ({"function": "no.such.thing"}, "cannot be loaded"),
        ({"function": "math.pi"}, "cannot be called"),
        ({"source_path": "/none/at/all.py"}, "source_path='/none/at/all.py'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ReduceWriter(**options)


def test_an_accumulator_that_cannot_be_kept_is_said() -> None:
    with pytest.raises(ConfigurationError, match="accumulator of reduce_function cannot be kept"):
        Pipeline(RECORDS, writer=ReduceWriter(function=lambda item, accumulator: object())).run()


def test_an_accumulator_that_grows_without_end_ends_the_run() -> None:
    # Given code that makes each accumulator of two of the one before: by reference, so that it costs nothing yet
    code = "def reduce_function(item, accumulator=None):\n    return [accumulator, accumulator]"
    pipeline = Pipeline(IterableReader({"n": number} for number in range(80)), writer=ReduceWriter(code=code))
    begin = time.thread_time()
    with pytest.raises(ConfigurationError, match="cannot be kept with the job: it takes too much time"):
        pipeline.run()
    assert time.thread_time() - begin < 10
