"""One pool over a file, SQLite, MongoDB, Elasticsearch and PostgreSQL: a dead and a poisoned one disturb no other."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import ExporterPool, FileExporter, SQLExporter, Stats
from tests.servers.destinations import Destination, Elasticsearch, MongoDB, PostgreSQL
from tests.servers.matrix import Row
from tests.servers.provision import Link
from tests.servers.story import Application, Verdict
from tests.servers.watch import PATIENCE
from tests.targets import balanced, until

MakeLink = Callable[[int], Link]
RATE = 500
POISON: dict[str, tuple[str, str]] = {
    "mongodb": ("x" * 17_000_000, "a document has at most 16777216"),
    "postgresql": ("\0", "NUL"),
    "elasticsearch": ("x" * 40_000, "32766"),
}
"""What one of them refuses and all others take, and what it says to it."""


@pytest.fixture
def all_three(at: Callable[[type[Destination]], Destination]) -> dict[str, Destination]:
    """The destinations with a server, by name."""
    return {cls.name: at(cls) for cls in (MongoDB, PostgreSQL, Elasticsearch)}


@pytest.mark.parametrize(
    ("dead", "poisoned"),
    [("mongodb", "elasticsearch"), ("elasticsearch", "postgresql"), ("postgresql", "mongodb")],
)
def test_the_others_are_unaffected(
    dead: str, poisoned: str, all_three: dict[str, Destination], link: MakeLink, tmp_path: Path, matrix: Any
) -> None:
    # Given a pool over all five at once
    for destination in all_three.values():
        destination.open(link(destination.server.port))
    elasticsearch = all_three["elasticsearch"]
    assert isinstance(elasticsearch, Elasticsearch)
    if poisoned == "elasticsearch":
        elasticsearch.map_as_keyword("text")
    lines, database = tmp_path / "readings.jsonl", tmp_path / "readings.db"
    members = [
        FileExporter(lines, name="file", timeout=PATIENCE),
        SQLExporter(f"sqlite:///{database}", "t", create_table=True, name="sqlite", timeout=PATIENCE),
        *(one.exporter(name=name, timeout=3.0 if name == dead else PATIENCE) for name, one in all_three.items()),
    ]
    text, reason = POISON[poisoned]
    with ExporterPool(members, retry=0.1, batch_records=100, max_memory="64 MB") as pool:
        application = Application(pool, lambda n: text if n in (150, 400) else "x" * 50)
        application.send(100)
        until(pool, lambda stats: all_have(stats, 100, members))

        # When one of them dies, and another gets records that it refuses, while the application sends on
        all_three[dead].link.fault("timeout", timeout=0)
        all_three[dead].link.fault("timeout", timeout=0, stream="upstream")
        with application.sending(RATE):
            application.wait_for(900)
        ended = time.monotonic()
        others = [one for one in members if one.name != dead]
        until(pool, lambda stats: all_have(stats, application.sent, others))
        lag = time.monotonic() - ended

        # Then the others have all of it, without a failed attempt, and the dead one has its backlog
        until(pool, lambda stats: stats.targets[dead].last_error != "")
        stats = balanced(pool)
        assert stats.targets[dead].pending > 0
        for one in others:
            figures = stats.targets[one.name]
            assert figures.dead == (2 if one.name == poisoned else 0)
            if one.name != poisoned:
                assert (figures.last_error, figures.retries, figures.state) == ("", 0, "closed")

        # And when it comes back, it gets everything
        all_three[dead].link.mend()
        until(pool, lambda stats: all_have(stats, application.sent, members))
        letters = [(letter.target, letter.data["n"]) for letter in pool.dead_letters() if reason in letter.reason]
        assert letters == [(poisoned, 150), (poisoned, 400)]
        balanced(pool)

    # And each has every record once
    there = {name: one.numbers() for name, one in all_three.items()}
    there["file"] = [json.loads(line)["n"] for line in lines.read_text().splitlines()]
    with closing(sqlite3.connect(database)) as connection:
        there["sqlite"] = [n for (n,) in connection.execute("SELECT n FROM t ORDER BY rowid")]
    for name, found in there.items():
        expected = set(range(application.sent)) - ({150, 400} if name == poisoned else set())
        verdict = Verdict.of(
            expected, found, longest_send=application.longest, recovery=lag, stalled=application.stalled
        )
        matrix(Row(f"pool with {dead} dead and {poisoned} poisoned: {name}", verdict, ordered=name == "file"))
        verdict.hold(in_order=name == "file")


def all_have(stats: Stats, records: int, members: list[Any]) -> bool:
    """Whether these have settled so many."""
    return all(stats.targets[one.name].delivered + stats.targets[one.name].dead >= records for one in members)
