"""Options of writers: what cannot be is said at once, and what changes nothing is said, too."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import BasicExporter, ConfigurationError, Pipeline, PipelineError
from resilient_exporters.pipeline.formatters import CSVExportFormatter
from resilient_exporters.pipeline.groupers import FileKeyGrouper
from resilient_exporters.pipeline.http_client import HTTPClient
from resilient_exporters.pipeline.writers import (
    ConsoleWriter,
    FSWriter,
    FTPWriter,
    HTTPWriter,
    MailWriter,
    S3Writer,
    SFTPWriter,
    SQLWriter,
)
from resilient_exporters.testing import RecordingExporter, eventually

FTP: dict[str, Any] = {"filebase": "x_", "host": "h", "ftp_user": "u", "ftp_password": "p"}
SFTP: dict[str, Any] = {"filebase": "x_", "host": "h", "sftp_user": "u", "sftp_password": "p"}
MAIL: dict[str, Any] = {"emails": ["a@b.org"], "subject": "s", "from": "a@b.org", "smtp_host": "h"}


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (ConsoleWriter, {"items_limit": -1}, "items_limit=-1 is not possible; give a whole number, 0 or more"),
        (FTPWriter, {**FTP, "port": 0}, "port=0: give a port from 1 to 65535"),
        (FTPWriter, {**FTP, "timeout": 0}, "timeout=0: give seconds, more than 0"),
        (FTPWriter, {**FTP, "timeout": float("nan")}, "timeout=nan: give seconds, more than 0"),
        (FTPWriter, {**FTP, "host": "ftp://h"}, "host='ftp://h': give the name or the address of a host"),
        (SFTPWriter, {**SFTP, "port": 70000}, "port=70000: give a port from 1 to 65535"),
        (SFTPWriter, {**SFTP, "host": ""}, "host='': give the name or the address of a host"),
        (HTTPWriter, {"url": "http://h", "timeout": -1}, "timeout=-1: give seconds, more than 0"),
        (SQLWriter, {"url": "sqlite://", "table": "t", "timeout": 0}, "timeout=0: give seconds"),
        (MailWriter, {**MAIL, "smtp_port": -1}, "smtp_port=-1: give a port"),
        (MailWriter, {**MAIL, "max_mails_sent": -1}, "max_mails_sent=-1: give 0 or more"),
        (S3Writer, {"filebase": "x", "bucket": ""}, "bucket='': give a name, in one line"),
        (S3Writer, {"filebase": "x", "bucket": "b", "aws_access_key_id": "a"}, "give both, or none"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        cls(**options)
    assert message in str(error.value)


def test_what_changes_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    BasicExporter(
        {
            "reader": {"name": "RandomReader", "options": {"number_of_items": 1}},
            "grouper": {"name": "FileKeyGrouper", "options": {"keys": ["state"]}},
            "writer": {"name": "AggregationStatsWriter", "options": {"compression": "gz", "items_limit": 9}},
            "exporter_options": {"formatter": {"name": "JsonExportFormatter", "options": {}}},
        }
    ).export()
    said = [line for line in caplog.messages if "changes nothing" in line]
    assert said == [
        "EXPORTMANAGER: AggregationStatsWriter does not use compression: it changes nothing",
        "EXPORTMANAGER: AggregationStatsWriter takes records as they are: JsonExportFormatter changes nothing",
        "EXPORTMANAGER: AggregationStatsWriter knows no groups: FileKeyGrouper changes nothing",
    ]


def test_what_is_used_is_not_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = FSWriter(filebase=f"{tmp_path}/x_", compression="none")
    Pipeline([{"n": 1}], FileKeyGrouper(keys=["n"]), writer=writer, formatter=CSVExportFormatter(fields=["n"])).run()
    Pipeline([{"n": 1}], writer=RecordingExporter()).run()
    assert "changes nothing" not in caplog.text


def test_names_that_ask_for_more_groups_are_refused_with_the_first_record(tmp_path: Path) -> None:
    # Given: names with two groups, and one key to group by
    given: list[int] = []

    def source() -> Any:
        for n in range(1000):
            given.append(n)
            yield {"n": n}

    writer = FSWriter(filebase=f"{tmp_path}/{{groups[0]}}/{{groups[1]}}_")
    with pytest.raises(PipelineError, match="names more groups than a record has: 1"):
        Pipeline(source(), FileKeyGrouper(keys=["n"]), writer=writer).run()
    assert len(given) == 1


def test_the_file_of_md5s_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def sync(descriptor: int, real: Any = real) -> None:
            synced.add(os.fstat(descriptor).st_ino)
            real(descriptor)

        monkeypatch.setattr(os, name, sync)
    Pipeline([{"n": 1}], writer=FSWriter(filebase=f"{tmp_path}/out/x_", generate_md5=True)).run()
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["md5checksum.md5", "x_0000.jl.gz"]
    assert {path.stat().st_ino for path in (tmp_path / "out").iterdir()} <= synced
    assert gzip.decompress((tmp_path / "out" / "x_0000.jl.gz").read_bytes()) == b'{"n":1}\n'


def test_a_stop_ends_the_wait_for_a_store_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    # Given: a writer that waits ten seconds for its server
    def stop() -> None:
        eventually(lambda: "again in 10 s" in caplog.text)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    # When: it is asked to stop
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    report = Pipeline([{"n": 1}], writer=FTPWriter(**{**FTP, "host": "127.0.0.1", "port": port})).run()
    stopper.join()
    # Then: it did not wait for a second attempt
    assert not report.complete
    assert "attempt 2" not in caplog.text


@pytest.mark.parametrize("part", [b"x", b"x" * (1 << 20)])
def test_a_server_that_never_ends_its_answer_does_not_hold_the_run_up(
    part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resilient_exporters.pipeline.http_client._LARGEST", 4 << 20)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                try:
                    while not ended.wait(0 if len(part) > 1 else 0.01):
                        connection.sendall(part)
                except OSError:  # it hung up, as it should
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        client = HTTPClient("test", timeout=0.5)
        try:
            with pytest.raises(Exception, match=r"does not end its answer|more than 4 MiB"):
                client.send(f"http://127.0.0.1:{server.getsockname()[1]}/", b"", {}, policy=None)
        finally:
            ended.set()
            client.close()
            thread.join()
