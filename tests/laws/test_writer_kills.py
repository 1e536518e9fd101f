"""kill -9 of a pipeline whose target takes nothing back: a database has each record once, a web service can see to it.

Rows are told by ids that the job's state fixed. A web service gets a batch twice at most where the program was killed
between its answer and the note of it; under the same ``Idempotency-Key``, with the same body.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from resilient_exporters.pipeline.checkpoint import Store
from tests.laws import writer_program as program
from tests.laws.killing import killed_until_done, run_to_its_end
from tests.laws.pipeline_program import DATABASE, job_of
from tests.services import Request, WebService, web_service

PROGRAM = Path(program.__file__)


class Rows:
    """A database of each run."""

    name = "sql"

    def url(self, folder: Path) -> str:
        path = folder.parent / f"{folder.name}.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {folder.name} (n INTEGER, text TEXT NOT NULL)")
            connection.commit()
        return f"sqlite:///{path}"

    def check(self, folder: Path, records: int, kills: int) -> set[int]:
        """Each record once. Returns those that are put aside."""
        with closing(sqlite3.connect(folder.parent / f"{folder.name}.db")) as connection:
            there = Counter(n for (n,) in connection.execute(f"SELECT n FROM {folder.name}"))
        assert set(there) == set(filter(program.fits, range(records))), "records lost"
        assert max(there.values()) == 1, "records doubled"
        return set(range(records)) - set(there)


class Posts:
    """A web service of all runs; what it refuses is a batch."""

    name = "http"

    def __init__(self, service: WebService) -> None:
        self.service = service
        service.answer = lambda request: (200 if self.taken(request) else 422, {}, b"{}")

    def url(self, folder: Path) -> str:
        return self.service.url

    def taken(self, request: Request) -> bool:
        return not any(line["n"] % 1000 == 999 for line in map(json.loads, request.body.splitlines()))

    def check(self, folder: Path, records: int, kills: int) -> set[int]:
        """Each record once under the keys of the batches. Returns those that are put aside."""
        requests = [request for request in self.service.requests if request.path == f"/{folder.name}"]
        bodies: dict[str, bytes] = {}
        for request in requests:
            key = request.headers["Idempotency-Key"]
            assert bodies.setdefault(key, request.body) == request.body, "another batch under the same key"
        there = Counter(json.loads(line)["n"] for body in bodies.values() for line in body.splitlines())
        assert set(there) == set(range(records)), "records lost"
        assert max(there.values()) == 1, "records doubled"
        assert len(requests) - len(bodies) <= kills, "a batch came again without a kill"
        refused = [request for request in requests if not self.taken(request)]
        return {json.loads(line)["n"] for request in refused for line in request.body.splitlines()}


@pytest.fixture
def posts() -> Iterator[Posts]:
    with web_service() as service:
        yield Posts(service)


def put_aside(folder: Path) -> list[int]:
    """The records that are kept with the job, with repetitions."""
    store = Store(folder / DATABASE)
    try:
        job = job_of(folder)[0]
        assert job is not None
        found = [one.data for one in store.dead(job)]
    finally:
        store.close()
    return [
        n
        for data in found
        for n in ([data["n"]] if isinstance(data, dict) else [json.loads(line)["n"] for line in data.splitlines()])
    ]


@pytest.mark.parametrize(
    ("records", "kills"), [(1_000, 4), pytest.param(5_000, 150, marks=pytest.mark.soak, id="soak")]
)
@pytest.mark.parametrize("kind", ["sql", "http"])
def test_killed_at_any_moment(kind: str, records: int, kills: int, tmp_path: Path, posts: Posts) -> None:
    target = Rows() if kind == "sql" else posts
    chance = random.Random(6)
    # Given: how long it takes, unless it is killed
    calm = tmp_path / "calm"
    calm.mkdir()
    longest = run_to_its_end(PROGRAM, calm, records, kind, target.url(calm)) / 2
    assert sorted(put_aside(calm)) == sorted(target.check(calm, records, 0))
    # When: it is killed so often, in as many runs as that takes
    done = runs = 0
    while done < kills:
        folder = tmp_path / f"run{runs}"
        url = target.url(folder)
        killed = killed_until_done(PROGRAM, folder, chance, kills - done, longest, records, kind, url)
        # Then: every record is there once, or is put aside
        refused = target.check(folder, records, killed)
        aside = put_aside(folder)
        assert set(aside) == refused, "records put aside are lost"
        assert len(aside) == len(set(aside)), "records are put aside twice"
        done += killed
        runs += 1
    print(f"{kind}: {done} kills in {runs} runs of {records} records: lost 0, doubled 0")
