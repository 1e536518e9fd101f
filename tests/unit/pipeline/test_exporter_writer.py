"""An exporter or a pool as the writer of a pipeline."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import ExporterPool, FileExporter
from resilient_exporters.pipeline import ConfigurationError, Pipeline
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.pipeline.writers import ExporterWriter
from tests.targets import PATIENCE, Target


def section(path: Path, **options: Any) -> dict[str, Any]:
    return {"name": "FileExporter", "options": {"target_file": str(path), **options}}


def lines(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def records(number: int) -> list[Any]:
    return [{"n": n} for n in range(number)]


def test_a_pool_in_a_configuration(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jl", tmp_path / "two.jl"
    pool = {"name": "resilient_exporters.ExporterPool", "options": {"exporters": [section(one), section(two)]}}
    report = Pipeline(records(1200), writer=ExporterWriter(exporter=pool)).run()
    assert lines(one) == lines(two) == list(range(1200))
    assert report.written == 1200
    assert report.figures["writer"]["pending"] == 0


def interrupted(tmp_path: Path, number: int = 50) -> tuple[dict[str, Any], str]:
    """A run into a file that failed in its third batch; its exporter and its job."""
    exporter = section(tmp_path / "out.jl", directory=str(tmp_path / "queue"))
    source = IterableReader([*records(number), "none"], batch_size=20)
    pipeline = Pipeline(source, writer=ExporterWriter(exporter=exporter))
    with pytest.raises(Exception, match="no mapping"):
        pipeline.run()
    return exporter, pipeline.persistence.job


def test_what_the_queue_took_of_a_failed_batch_does_not_come_again(tmp_path: Path) -> None:
    exporter, job = interrupted(tmp_path)
    source = IterableReader(records(100), batch_size=20)
    Pipeline(source, writer=ExporterWriter(exporter=exporter), resume=job).run()
    assert lines(tmp_path / "out.jl") == list(range(100))


def test_another_pipeline_that_used_the_queue_meanwhile_costs_no_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its records were taken for ours, and as many of ours left out."""
    exporter, job = interrupted(tmp_path)
    Pipeline([{"n": 1000 + n} for n in range(30)], writer=ExporterWriter(exporter=exporter)).run()
    source = IterableReader(records(100), batch_size=20)
    Pipeline(source, writer=ExporterWriter(exporter=exporter), resume=job).run()
    found = lines(tmp_path / "out.jl")
    assert set(range(100)) <= set(found)
    assert "was used by another pipeline" in caplog.text
    assert len(found) == 100 + 30 + 10  # the ten of the batch that was not committed came twice


def test_a_full_queue_holds_the_run_up(tmp_path: Path) -> None:
    # Given a target that takes nothing, and a queue with room for a few records
    target = Target(max_records=50, max_memory="1 MB", on_full="block", batch_records=10)
    target.gate.clear()
    waiting = threading.Event()
    given = 0

    def source() -> Any:
        nonlocal given
        for one in records(500):
            given += 1
            if given == 100:
                waiting.set()
            yield one

    # When a pipeline writes to it
    writer = ExporterWriter(exporter=target, close_timeout=PATIENCE)
    reports: list[Any] = []
    thread = threading.Thread(
        target=lambda: reports.append(Pipeline(IterableReader(source(), batch_size=10), writer=writer).run())
    )
    thread.start()
    target.entered()
    assert not waiting.wait(0.2)  # the queue is full long before
    assert given < 100

    # Then it waits, and goes on when there is room, and nothing is dropped
    target.gate.set()
    thread.join(PATIENCE)
    assert [one["n"] for one in target.taken] == list(range(500))
    assert reports[0].figures["writer"]["dropped"] == {}
    target.close()


def test_what_is_dropped_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    target = Target(max_records=50, on_full="drop_oldest", batch_records=10)
    target.gate.clear()
    thread = threading.Timer(0, target.entered)
    thread.start()
    writer = ExporterWriter(exporter=target, close_timeout=0.0)
    report = Pipeline(IterableReader(records(500), batch_size=10), writer=writer).run()
    thread.join()
    figures = report.figures["writer"]
    assert "drops records when its queue is full" in caplog.text
    assert sum(figures["dropped"].values()) + figures["delivered"] + figures["pending"] == 500
    assert sum(figures["dropped"].values()) >= 400
    target.gate.set()
    target.close()


def test_an_exporter_that_was_given_stays_open(tmp_path: Path) -> None:
    with FileExporter(str(tmp_path / "out.jl")) as exporter:
        Pipeline(records(3), writer=exporter).run()
        exporter.send({"n": 3}).result(PATIENCE)
    assert lines(tmp_path / "out.jl") == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("exporter", "message"),
    [
        ({"name": "FileExporter", "options": {"target_fil": "x"}}, "target_fil"),
        ({"name": "NoSuchExporter"}, "NoSuchExporter"),
        ({"name": "ConsoleWriter"}, "ConsoleWriter is no exporter"),
        ({"name": "FileExporter", "more": 1}, "give {"),
        ({"name": "ExporterPool", "options": {"exporters": [{"name": "Nothing"}]}}, "Nothing"),
        (3, "exporter"),
    ],
)
def test_sections_that_cannot_be(exporter: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        ExporterWriter(exporter=exporter)
    assert message in str(error.value)


def test_a_pool_of_exporters_given_in_code(tmp_path: Path) -> None:
    one = FileExporter(str(tmp_path / "one.jl"))
    with ExporterPool([one], on_full="block") as pool:
        Pipeline(records(10), writer=pool).run()
    assert lines(tmp_path / "one.jl") == list(range(10))
