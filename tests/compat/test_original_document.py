"""The original document's own examples, as written there.

Those for MongoDB and Elasticsearch, pools over both included, are in test_document_mongodb.py and
test_document_elasticsearch.py: they need servers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.programs import run
from tests.targets import PATIENCE, Target


def test_store_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    from resilient_exporters import FileExporter

    exporter = FileExporter(target_file="mydata.txt", max_lines=1000, keep_new_data=True)

    mydata = ["value1", "value2"]
    exporter.send(mydata)

    # Then
    assert exporter.flush(PATIENCE).complete
    assert Path("mydata.txt").read_text() == "value1\nvalue2\n"
    assert exporter.remaining_lines == 998


def test_store_in_a_file_as_a_program_that_just_ends(tmp_path: Path) -> None:
    # The example has no flush and no close: what it sends must not be lost at its end.
    program = """
        import os, sys
        os.chdir(sys.argv[1])
        from resilient_exporters import FileExporter

        exporter = FileExporter(target_file="mydata.txt",
                                max_lines=1000,
                                keep_new_data=True)

        mydata = ["value1", "value2"]
        exporter.send(mydata)
    """
    run(program, tmp_path)
    run("""
        import os, sys
        os.chdir(sys.argv[1])
        from resilient_exporters import FileExporter
        exporter = FileExporter(target_file="mydata.txt", max_lines=1000, keep_new_data=True)
        assert exporter.flush(60).complete
        exporter.close()
    """, tmp_path)  # fmt: skip
    assert (tmp_path / "mydata.txt").read_text() == "value1\nvalue2\n"


def test_transform_before_sending() -> None:
    def transform(data: Any) -> Any:
        data["metric"] = (data["metric"] / 2) * 0.5
        return data

    exporter = Target(transform=transform)

    mydata = {"metric": 2}
    exporter.send(mydata)

    # Then
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == [{"metric": 0.5}]
    assert mydata == {"metric": 2}


def test_pools(tmp_path: Path) -> None:
    from resilient_exporters import ExporterPool, FileExporter

    exporters = [FileExporter(str(tmp_path / "one.txt")), FileExporter(str(tmp_path / "two.txt"))]

    pool = ExporterPool(exporters, use_memory=False)

    mydata = {"metric": 2}
    pool.send(mydata)

    # Then
    assert pool.flush(PATIENCE).complete
    assert (tmp_path / "one.txt").read_text() == (tmp_path / "two.txt").read_text() == '{"metric":2}\n'
    assert not pool.use_memory


def test_pools_of_pools(tmp_path: Path) -> None:
    from resilient_exporters import ExporterPool, FileExporter

    inner = ExporterPool([FileExporter(str(tmp_path / "one.txt"))])
    pool = ExporterPool([inner, FileExporter(str(tmp_path / "two.txt"))], transform=lambda data: {**data, "pool": True})

    pool.send({"metric": 2})

    # Then
    assert pool.flush(PATIENCE).complete
    assert (tmp_path / "one.txt").read_text() == (tmp_path / "two.txt").read_text() == '{"metric":2,"pool":true}\n'


def test_a_transform_of_a_pool_supersedes_the_others(tmp_path: Path) -> None:
    from resilient_exporters import ExporterPool, FileExporter

    exporter = FileExporter(str(tmp_path / "one.txt"), transform=lambda data: {"member": 1})
    pool = ExporterPool([exporter], transform=lambda data: {"pool": 1})
    pool.send({"metric": 2})
    assert pool.flush(PATIENCE).complete
    assert (tmp_path / "one.txt").read_text() == '{"pool":1}\n'


def test_if_a_connection_is_lost_it_is_saved_and_retried() -> None:
    # "If a connection is lost, it automatically saves the data and retries later"
    exporter = Target(ConnectionError("lost"), retry=0.01)
    receipt = exporter.send({"metric": 2})
    assert not receipt.successful
    assert exporter.save(PATIENCE)
    exporter.answer = None
    assert receipt.result(PATIENCE).successful
