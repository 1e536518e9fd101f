"""How many records have which keys."""

from __future__ import annotations

import pytest

from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.pipeline.writers import AggregationStatsWriter

RECORDS = [{"a": n, **({"b": None} if n % 2 else {}), **({"c": 1} if n < 2 else {})} for n in range(8)]


def test_occurrences_and_coverage() -> None:
    report = Pipeline(RECORDS, writer=AggregationStatsWriter()).run()
    figures = report.figures["writer"]
    assert figures["occurrences"] == {"a": 8, "b": 4, "c": 2}
    assert figures["coverage"] == {"a": 100.0, "b": 50.0, "c": 25.0}


def test_an_empty_export_has_none() -> None:
    assert Pipeline([], writer=AggregationStatsWriter()).run().figures["writer"]["coverage"] == {}


def test_a_resume_counts_on() -> None:
    first = Pipeline(IterableReader([*RECORDS[:4], "none"], batch_size=2), writer=AggregationStatsWriter())
    with pytest.raises(Exception, match="no mapping"):
        first.run()
    writer = AggregationStatsWriter()
    Pipeline(IterableReader(RECORDS, batch_size=2), writer=writer, resume=first.persistence.job).run()
    assert writer.get_aggregated_occurrences() == {"a": 8, "b": 4, "c": 2}
    assert writer.get_aggregated_coverage()["b"] == 50.0


def test_keys_are_bounded() -> None:
    records = [{f"k{n}": 1} for n in range(100)]
    figures = Pipeline(records, writer=AggregationStatsWriter(max_keys=10)).run().figures["writer"]
    assert len(figures["occurrences"]) == 10
    assert figures["other_occurrences"] == 90
