"""Files over SFTP with OpenSSH, the server that nearly everybody has: written, read again, cut off, refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import Pipeline, PipelineError
from resilient_exporters.pipeline.groupers import FileKeyGrouper
from resilient_exporters.pipeline.readers import FsspecReader
from resilient_exporters.pipeline.writers import SFTPWriter
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.testing import RecordingExporter
from tests.servers.provision import Instance
from tests.servers.provision.openssh import OpenSSH

FILES = {
    "day/g0/x_0000.jl.gz": list(range(0, 20, 2)), "day/g0/x_0001.jl.gz": list(range(20, 30, 2)),
    "day/g1/x_0000.jl.gz": list(range(1, 20, 2)), "day/g1/x_0001.jl.gz": list(range(21, 30, 2)),
}  # fmt: skip


def writer_options(server: Instance, **more: Any) -> dict[str, Any]:
    login = OpenSSH.login(server)
    return {
        "filebase": "day/{groups[0]}/x_", "items_per_buffer_write": 10, "check_consistency": True, "generate_md5": True,
        "host": login["host"], "port": login["port"], "sftp_user": login["user"], "key_file": login["key"],
        "known_hosts": login["known_hosts"], **more,
    }  # fmt: skip


def write(writer: SFTPWriter, **options: Any) -> None:
    records = [{"n": number, "place": f"g{number % 2}"} for number in range(30)]
    Pipeline(records, FileKeyGrouper(keys=["place"]), writer=writer, **options).run()


def there(server: Instance) -> dict[str, list[int]]:
    """What lies in the home directory, beside the MD5s."""
    home = server.data / "home"
    return {
        str(path.relative_to(home)): [json.loads(line)["n"] for line in gzip.decompress(path.read_bytes()).splitlines()]
        for path in home.rglob("*")
        if path.is_file() and path.name != "md5checksum.md5"
    }


@pytest.fixture
def server(own_server: Callable[..., Instance]) -> Instance:
    return own_server("openssh")


def test_what_is_written_can_be_read_again(server: Instance) -> None:
    # Given: files that were written twice, the second time over those of the first run
    for _ in range(2):
        write(SFTPWriter(**writer_options(server)), disable_retries=True)
    assert there(server) == FILES
    assert len((server.data / "home" / "day" / "md5checksum.md5").read_text().splitlines()) == 4

    # When: a pipeline reads them
    login = OpenSSH.login(server)
    reader = FsspecReader(
        url=f"sftp://{login['user']}@{login['host']}:{login['port']}{server.data}/home/day", pattern=r"\.jl\.gz$",
        storage_options={"key_filename": login["key"], "allow_agent": False, "look_for_keys": False},
    )  # fmt: skip
    target = RecordingExporter()
    report = Pipeline(reader, writer=target).run()

    # Then
    assert report.read == 30
    assert sorted(record["n"] for record in target.records) == list(range(30))


def test_a_server_that_crashes_is_connected_to_again(server: Instance) -> None:
    # Given: a server that is killed before the second file, and is back when the writer has waited
    waits: list[float] = []

    class Crashing(SFTPWriter):
        def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
            if packed is not None and packed.number == 1 and not waits:
                server.kill()
            super().put(path, name, packed)

    def wait(seconds: float) -> None:
        waits.append(seconds)
        server.start()

    # When
    writer = Crashing(**writer_options(server))
    writer.sleep = wait
    write(writer)

    # Then
    assert there(server) == FILES
    assert waits == [10]


def test_who_is_not_known_is_refused(server: Instance, tmp_path: Path) -> None:
    unknown = tmp_path / "known_hosts"
    unknown.touch()
    with pytest.raises(PipelineError, match="not found in known_hosts"):
        write(SFTPWriter(**writer_options(server, known_hosts=str(unknown))), disable_retries=True)
    with pytest.raises(PipelineError, match="stranger"):
        write(SFTPWriter(**writer_options(server, sftp_user="stranger")), disable_retries=True)
    assert there(server) == {}


@pytest.mark.parametrize(
    ("filebase", "message"),
    [
        ("/x_", r"writing sftp://.*//x_0000-g0\.jl\.gz failed: PermissionError"),
        ("/dev/null/x_", r"sftp://.*//dev/null is no directory"),
        ("taken/x_", r"sftp://.*/taken/x_0000-g0\.jl\.gz is a directory"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_named(server: Instance, filebase: str, message: str) -> None:
    (server.data / "home" / "taken" / "x_0000-g0.jl.gz").mkdir(parents=True)
    (server.data / "home" / "taken").chmod(0o777)
    with pytest.raises(PipelineError, match=message):
        write(SFTPWriter(**writer_options(server, filebase=filebase)), disable_retries=True)
