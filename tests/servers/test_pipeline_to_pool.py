"""kill -9 of a pipeline that writes to a pool of file and MongoDB: each record is there once, in both."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pymongo
import pytest

from tests import programs
from tests.servers.provision import HOST, Instance

PROGRAM = Path(__file__).with_name("pipeline_to_pool.py")
RECORDS = 3000
LONGEST = 1.5
"""Seconds after its first word at which a program is killed, at most."""


def live(arguments: str, seconds: float | None) -> bool:
    """Let it run, and kill it so many seconds after it began. Whether it was done before."""
    program = programs.start(PROGRAM, arguments)
    assert program.stdout is not None
    first = program.stdout.readline()
    assert first.strip() in ("begin", "done"), program.communicate()
    over = threading.Timer(seconds, program.kill) if seconds is not None else None
    if over is not None:
        over.start()
    out, errors = program.communicate()
    if over is not None:
        over.cancel()
        over.join()
    done = "done" in first + out
    assert done or program.returncode == -9, errors
    return done


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_each_record_is_there_once(ferretdb: Instance, mongo_database: str, tmp_path: Path, kills: int) -> None:
    chance = random.Random(6)
    killed = runs = 0
    while killed < kills:
        # Given a pipeline with a pool in its configuration
        folder = tmp_path / f"run{runs}"
        folder.mkdir()
        collection = f"t{runs}"
        pool: dict[str, Any] = {
            "name": "resilient_exporters.ExporterPool",
            "options": {
                "name": f"pool-{tmp_path.name}-{runs}",
                "directory": str(folder / "queue"),
                "exporters": [
                    {"name": "FileExporter", "options": {"target_file": str(folder / "out.jl"), "name": "file"}},
                    {
                        "name": "resilient_exporters.MongoDBExporter",
                        "options": {
                            "target_ip": HOST, "target_port": ferretdb.port, "default_db": mongo_database,
                            "default_collection": collection, "name": "mongodb",
                        },
                    },
                ],
            },
        }  # fmt: skip
        arguments = json.dumps(
            {"records": RECORDS, "batch": 100, "pool": pool, "jobs": str(folder / "jobs.db")}
        )  # fmt: skip

        # When it is killed at any moment, and resumed, until it is done
        while not live(arguments, chance.uniform(0, LONGEST) if killed < kills else None):
            killed += 1
        runs += 1

        # Then each record is there once, in both
        expected = Counter(n for n in range(RECORDS) if n % 10 != 3)
        lines = (folder / "out.jl").read_text().splitlines()
        with pymongo.MongoClient[dict[str, Any]](HOST, ferretdb.port) as client:
            documents = [one["n"] for one in client[mongo_database][collection].find({}, {"n": 1})]
        for found in (Counter(json.loads(line)["n"] for line in lines), Counter(documents)):
            assert (sum((expected - found).values()), sum((found - expected).values())) == (0, 0)
    print(f"{killed} kills, {runs} runs done")
