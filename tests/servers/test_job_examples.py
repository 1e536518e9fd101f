"""The example for the Raspberry Pi, with a real MongoDB: what waited reaches it, each reading once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.programs import environment
from tests.servers.provision import HOST, Instance

EXAMPLE = Path(__file__).parents[2] / "examples" / "raspberry_pi.py"


def run(directory: Path, uri: str) -> str:
    command = [sys.executable, str(EXAMPLE), str(directory), "--mongodb", uri]
    command += ["--simulate", "--every", "0", "--count", "25"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readings_that_waited_reach_the_database_once(tmp_path: Path, ferretdb: Instance, mongo_database: str) -> None:
    import pymongo

    # Given a run with the database away, on a port where nobody listens
    away = f"mongodb://{HOST}:9/{mongo_database}"
    assert "site-database: 0 delivered, 25 wait" in run(tmp_path, away)

    # When it is there in the next
    assert "site-database: 50 delivered, 0 wait" in run(tmp_path, f"mongodb://{HOST}:{ferretdb.port}/{mongo_database}")

    # Then
    with pymongo.MongoClient[dict[str, Any]](HOST, ferretdb.port) as client:
        found = list(client[mongo_database]["readings"].find())
    assert len(found) == 50
    assert [one["temperature"] for one in found].count(None) == 4
    assert len((tmp_path / "readings.jsonl").read_text().splitlines()) == 50
