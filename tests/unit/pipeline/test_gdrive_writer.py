"""Files in Google Drive, with the client that users have, PyDrive2.

PyDrive2 1.21 holds cryptography below the version that asyncssh asks for, so it is not in the tests' environment: these
run where it is on the path (``pip install --target DIR pydrive2 PySocks``; ``PYTHONPATH=.:DIR``).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import environment
from tests.unit.pipeline.drive_service import TOKEN, DriveService, drive_service

if importlib.util.find_spec("pydrive2") is None:
    pytest.skip("PyDrive2 CANNOT BE HAD beside asyncssh", allow_module_level=True)

PROGRAM = """
import json, sys
from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.writers import GDriveWriter

writer = GDriveWriter(
    filebase="it's/day/x_", client_secret={"installed": {"client_id": "i", "client_secret": "s"}},
    credentials=json.loads(sys.argv[1]), items_per_buffer_write=400, compression="none", check_consistency=True,
    generate_md5=True,
)
Pipeline([{"n": n} for n in range(1000)], writer=writer, disable_retries=True).run()
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[DriveService]:
    with drive_service(tmp_path) as one:
        yield one


def run(service: DriveService, **more: Any) -> subprocess.CompletedProcess[str]:
    credentials = {
        "access_token": TOKEN, "client_id": "i", "client_secret": "s", "refresh_token": "r", "token_expiry": None,
        "token_uri": "https://www.googleapis.com/token", "user_agent": None, "revoke_uri": None, "invalid": False,
        "_class": "OAuth2Credentials", "_module": "oauth2client.client", **more,
    }  # fmt: skip
    proxy = {"https_proxy": f"http://127.0.0.1:{service.port}", "HTTPLIB2_CA_CERTS": str(service.certificate)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(credentials)], capture_output=True, text=True, timeout=120,
        check=False, env={**environment(proxy), "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip


@pytest.mark.parametrize("expiry", [None, "2020-01-01T00:00:00Z"])
def test_files_go_up_and_over_those_of_an_earlier_run(service: DriveService, expiry: str | None) -> None:
    for _ in range(2):
        done = run(service, token_expiry=expiry)
        assert done.returncode == 0, done.stderr
    found = service.files()
    lines = [json.loads(line)["n"] for n in range(3) for line in found[f"it's/day/x_000{n}.jl"].splitlines()]
    assert lines == list(range(1000))
    assert set(found) == {*(f"it's/day/x_000{n}.jl" for n in range(3)), "it's/day/md5checksum.md5"}
    assert len(service.entries) == 6, "folders or files that are there twice"
    assert service.renewed == (0 if expiry is None else 2)


def test_credentials_that_expired_and_cannot_be_renewed_are_said_and_no_browser_is_waited_for(
    service: DriveService,
) -> None:
    done = run(service, token_expiry="2020-01-01T00:00:00Z", refresh_token=None)
    assert done.returncode == 1
    assert "PipelineError: credentials: they have expired and hold no refresh_token" in done.stderr
    assert service.entries == {}
