"""Export to any exporter or pool, and RunPipeline."""

from __future__ import annotations

import datetime as dt
import json
import threading
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from resilient_exporters import ExporterPool, FileExporter
from resilient_exporters.delivery.outcome import Reject
from resilient_exporters.pipeline import Pipeline, PipelineReport
from resilient_exporters.tasks import (
    Export,
    Rows,
    RunPipeline,
    Task,
    TasksFailed,
    bigrays_run,
    export,
    run_pipeline,
    update_format_kws,
)
from resilient_exporters.testing import FlakyTarget, RecordingExporter, hang


class TestExport:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
            ({"a": 1}, [{"a": 1}]),
            ("text", ["text"]),
            (b"bytes", [b"bytes"]),
            (({"n": n} for n in range(2500)), [{"n": n} for n in range(2500)]),
            (Rows(["a"], [[1], [2]]), [{"a": 1}, {"a": 2}]),
            (pd.DataFrame({"a": [1.5, None], "b": ["x", "y"]}), [{"a": 1.5, "b": "x"}, {"a": None, "b": "y"}]),
            (pd.DataFrame({"at": [pd.Timestamp(2026, 1, 2), pd.NaT]}), [{"at": dt.datetime(2026, 1, 2)}, {"at": None}]),
            (pl.DataFrame({"a": [1, None]}), [{"a": 1}, {"a": None}]),
        ],
        ids=["rows", "mapping", "text", "bytes", "generator", "stream", "pandas", "dates", "polars"],
    )
    def test_any_input_goes_to_an_exporter(self, data, expected):
        with RecordingExporter(name="to") as target:
            report = export(input=data, exporter=target)
            assert target.records == expected
        assert (report.accepted, report.delivered, report.pending) == (len(expected), len(expected), 0)

    def test_to_a_pool(self):
        one, two = RecordingExporter(name="one"), RecordingExporter(name="two")
        with ExporterPool([one, two], name="both") as pool:
            report = export(input=[{"a": 1}], exporter=pool)
            assert one.records == two.records == [{"a": 1}]
        assert report.delivered == 2

    def test_to_a_url_with_format_keywords(self, tmp_path: Path):
        update_format_kws(day="2026-11-21")
        export(input=[{"a": 1}], exporter=f"file://{tmp_path}/{{day}}.jsonl")
        assert (tmp_path / "2026-11-21.jsonl").read_text() == '{"a":1}\n'

    def test_to_what_a_callable_makes_which_is_closed_then(self, tmp_path: Path):
        made: list[FileExporter] = []

        class To(Export):
            input = [{"a": 1}]

            @staticmethod
            def exporter():
                made.append(FileExporter(tmp_path / "x.jsonl"))
                return made[-1]

        bigrays_run(To)
        assert json.loads((tmp_path / "x.jsonl").read_text()) == {"a": 1}
        with pytest.raises(Exception, match="closed"):
            made[0].send({"a": 2})

    def test_a_dead_link_is_no_failure_because_the_records_wait(self):
        with FlakyTarget([ConnectionError("no link")], cycle=True, name="dead") as target:
            report = export(input=[{"a": 1}, {"a": 2}], exporter=target, timeout=0.2)
            assert (report.accepted, report.delivered, report.pending) == (2, 0, 2)

    def test_unless_delivery_is_required(self):
        with (
            FlakyTarget([ConnectionError("no link")], cycle=True, name="dead") as target,
            pytest.raises(TasksFailed, match=r"records wait after 0\.2 s.*no link"),
        ):
            export(input=[{"a": 1}], exporter=target, timeout=0.2, require_delivery=True)

    def test_records_that_are_refused_or_dropped_are_a_failure(self):
        with (
            FlakyTarget([Reject("bad")], cycle=True, name="strict") as strict,
            pytest.raises(TasksFailed, match=r"FlakyTarget strict: 2 records were refused for good"),
        ):
            export(input=[{"a": 1}, {"a": 2}], exporter=strict)
        go = threading.Event()
        with FlakyTarget([hang(go)], cycle=True, name="full", max_records=10, batch_records=5) as full:
            with pytest.raises(TasksFailed, match=r"FlakyTarget full dropped .* records: its queue was too small"):
                export(input=[{"a": n} for n in range(100)], exporter=full, timeout=0.2)
            go.set()

    def test_what_is_no_exporter_is_refused(self):
        with pytest.raises(TasksFailed, match="exporter=7 is not possible; give an exporter or pool, a URL"):
            export(input="x", exporter=7)


class TestRunPipeline:
    def test_a_configuration_runs(self, tmp_path: Path):
        (tmp_path / "pipeline.json").write_text("{}")
        update_format_kws(name="pipeline")
        with pytest.raises(TasksFailed, match="ConfigCheckError"):
            run_pipeline(pipeline=f"{tmp_path}/{{name}}.json")
        with pytest.raises(TasksFailed, match="ConfigCheckError"):
            run_pipeline(pipeline={"reader": {}})

    def test_a_pipeline_runs(self):
        target = RecordingExporter(name="to")
        report = run_pipeline(pipeline=Pipeline([{"n": 1}, {"n": 2}], lambda record: record["n"] > 1, writer=target))
        assert isinstance(report, PipelineReport)
        assert report.written == 1
        assert target.records == [{"n": 2}]
        target.close()

    def test_a_callable_gets_the_output_of_a_task(self):
        target = RecordingExporter(name="to")

        class Numbers(Task):
            def run(self):
                return pd.DataFrame({"n": [1, 2, 3]})

        class Copy(RunPipeline):
            input = Numbers.output

            @staticmethod
            def pipeline(records):
                return Pipeline(records, writer=target)

        bigrays_run(Numbers, Copy)
        assert [record["n"] for record in target.records] == [1, 2, 3]
        assert Copy.output.complete
        target.close()

    def test_what_is_no_pipeline_is_refused(self):
        with pytest.raises(TasksFailed, match="pipeline=7 is not possible; give a configuration, its path"):
            run_pipeline(pipeline=7)
