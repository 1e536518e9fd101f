"""kill -9 of the sending program, again and again, while it drains a backlog over a slow link and sends on."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.servers.destinations import Destination, Elasticsearch, MongoDB, PostgreSQL
from tests.servers.matrix import Row
from tests.servers.provision import Link
from tests.servers.story import Verdict
from tests.servers.watch import PATIENCE
from tests.targets import balanced

MakeLink = Callable[[int], Link]
SENDER = Path(__file__).with_name("sender.py")
LIFE = 1_000_000
"""The first record of each life of the sender has the number of the life times this."""


@pytest.fixture(params=[MongoDB, PostgreSQL, Elasticsearch], ids=lambda cls: cls.name)
def destination(request: pytest.FixtureRequest, at: Callable[[type[Destination]], Destination]) -> Destination:
    """One of the destinations."""
    return at(request.param)


def live(destination: Destination, options: dict[str, Any], life: int, records: int, burst: int) -> int:
    """Start the sender, kill it once it has sent so many records, and return how many it was told to be accepted."""
    given = {"cls": destination.cls, "options": options, "first": life * LIFE, "burst": burst, "rate": 1000}
    program = programs.start(SENDER, json.dumps(given))
    assert program.stdout is not None
    told = list(itertools.islice(program.stdout, records))
    program.kill()
    told += [line for line in program.stdout if line.endswith("\n")]  # the last one may be torn
    _, errors = program.communicate()
    assert len(told) >= records, errors
    return len(told)


@pytest.mark.parametrize("concurrency", [1, "auto"])
@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.soak)])
def test_the_sender_is_killed_again_and_again(
    destination: Destination,
    concurrency: Any,
    kills: int,
    link: MakeLink,
    tmp_path: Path,
    matrix: Callable[[Row], None],
) -> None:
    # Given a backlog that was accepted while the link was down, by a program that was killed
    destination.open(link(destination.server.port))
    options = {
        **destination.options(), "directory": str(tmp_path / "queue"), "name": "sender", "retry": 0.1,
        "batch_records": 50, "concurrency": concurrency, "timeout": 5.0,
    }  # fmt: skip
    destination.link.cut()
    told = [live(destination, options, 0, records=5000, burst=5000)]

    # When it is killed again and again, at any moment, while it drains over a slow link and sends on
    destination.link.mend()
    destination.link.fault("latency", latency=20, jitter=10)
    chance = random.Random(4)
    told += [live(destination, options, life, chance.randrange(1, 600), burst=0) for life in range(1, kills)]

    # Then everything that it was told to be accepted is there, once; beyond that, of each life, at most the one record
    # that was accepted when nobody could be told any more
    destination.link.mend()
    it = destination.exporter(directory=tmp_path / "queue", name="sender")
    assert it.flush(PATIENCE).complete
    figures = balanced(it).targets["sender"]
    it.close()
    there = destination.numbers()
    untold = {life * LIFE + count for life, count in enumerate(told)}
    sent = {life * LIFE + n for life, count in enumerate(told) for n in range(count)}
    verdict = Verdict.of(sent | untold & set(there), there)
    assert (figures.accepted, figures.delivered) == (verdict.accepted, verdict.accepted)
    ordered = concurrency == 1
    matrix(Row(f"{destination.name} sender killed {kills} times {concurrency}", verdict, ordered))
    verdict.hold(in_order=ordered)
