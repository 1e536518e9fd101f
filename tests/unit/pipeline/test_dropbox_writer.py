"""Files in Dropbox, with Dropbox's own client, which reads the address of the service when it is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_exporters.pipeline import ConfigurationError
from resilient_exporters.pipeline.writers import DropboxWriter
from tests.programs import environment
from tests.unit.pipeline.dropbox_service import TOKEN, DropboxService, dropbox_service

pytest.importorskip("dropbox")
PROGRAM = """
import sys
from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.writers import DropboxWriter, dropbox_writer

vars(dropbox_writer)["_PART"] = 1000
writer = DropboxWriter(
    filebase="day/x_", access_token=sys.argv[1], items_per_buffer_write=400, compression="none", check_consistency=True,
    generate_md5=True,
)
records = [{"n": n} for n in range(1000)]
Pipeline(records, writer=writer, disable_retries=len(sys.argv) > 2).run()
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[DropboxService]:
    with dropbox_service(tmp_path) as one:
        yield one


def run(service: DropboxService, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = {"DROPBOX_API_HOST": service.host, "DROPBOX_API_CONTENT_HOST": service.host}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=120, check=False,
        env=environment({**where, "REQUESTS_CA_BUNDLE": str(service.certificate)}),
    )  # fmt: skip


def test_files_go_up_in_parts_and_over_those_of_an_earlier_run(service: DropboxService) -> None:
    # Given: a server that fails now and then
    service.fail = ["files/upload_session/start", "files/upload_session/append_v2", "files/upload_session/finish"]
    for _ in range(2):
        done = run(service, TOKEN)
        assert done.returncode == 0, done.stderr
    # Then
    lines = [json.loads(line)["n"] for n in range(3) for line in service.files[f"/day/x_000{n}.jl"].splitlines()]
    assert lines == list(range(1000))
    assert set(service.files) == {*(f"/day/x_000{n}.jl" for n in range(3)), "/day/md5checksum.md5"}
    assert service.calls.count("files/upload_session/append_v2") > 5
    assert not service.fail


def test_a_token_that_is_not_taken_is_said(service: DropboxService) -> None:
    done = run(service, "sl.wrong-word")
    assert done.returncode == 1
    assert "PipelineError: Dropbox refuses the token" in done.stderr
    assert "wrong-word" not in done.stderr
    assert service.files == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "access_token is missing (or set EXPORTERS_DROPBOXWRITER_TOKEN): give it, or refresh_token"),
        ({"refresh_token": "r"}, "refresh_token: give app_key, too"),
    ],
)
def test_what_is_missing_is_said(options: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPORTERS_DROPBOXWRITER_TOKEN", raising=False)
    with pytest.raises(ConfigurationError) as error:
        DropboxWriter(filebase="x", **options)
    assert message in str(error.value)
