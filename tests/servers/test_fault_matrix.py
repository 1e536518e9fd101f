"""Every fault on the wire and of the server, for every destination: nothing lost, nothing twice, and no `send` waits.

The cells that every run has are short; `make soak` has them with three rounds of the package's own waiting times, and
for both kinds of concurrency. The table is printed at the end of the run, and by ``python -m tests.servers.matrix``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.servers.conftest import or_skip
from tests.servers.destinations import DESTINATIONS, Destination
from tests.servers.faults import FAULTS, Fault
from tests.servers.matrix import Row
from tests.servers.provision import Link, UnavailableError
from tests.servers.provision.server import poll
from tests.servers.story import Story

MakeLink = Callable[[int], Link]


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a cell takes.

    Attributes:
        name: of the length.
        rate: records a second.
        rounds: how often the fault comes.
        seconds: how long it stays, at least.
        patience: seconds that each wait may take.
        options: of the exporter.
    """

    name: str
    rate: int
    rounds: int
    seconds: float
    patience: float
    options: dict[str, Any]


SHORT = Length("short", 500, 1, 0.5, 60, {"timeout": 2.0, "retry": 0.1})
LONG = Length("long", 500, 3, 8, 180, {"timeout": 10.0, "retry": None, "batch_records": 500})
TRIES = 20
"""How often a fault may come until an answer breaks off behind the commit."""
CELLS = [
    pytest.param(
        destination, name, concurrency, length,
        marks=[pytest.mark.soak] if length is LONG else [], id=f"{destination.name}-{name}-{concurrency}-{length.name}",
    )
    for destination in DESTINATIONS
    for name, fault in FAULTS.items()
    if fault.possible(name, destination)
    for length, concurrency in ((SHORT, 1 if fault.needs is None else "auto"), (LONG, 1), (LONG, "auto"))
]  # fmt: skip
"""In short, order is looked at on bad links, and the default concurrency with bad servers."""


@pytest.fixture
def destination(request: pytest.FixtureRequest, at: Callable[[type[Destination]], Destination]) -> Destination:
    """One of the destinations."""
    return at(request.param)


@pytest.mark.parametrize(("destination", "name", "concurrency", "length"), CELLS, indirect=["destination"])
def test_nothing_is_lost_or_doubled(
    destination: Destination, name: str, concurrency: Any, length: Length, link: MakeLink, matrix: Callable[[Row], None]
) -> None:
    # Given an exporter to a place of its own
    fault = FAULTS[name]
    destination.open(link(destination.port(name)))
    ordered = concurrency == 1 and destination.in_order
    with contextlib.ExitStack() as cleaning:
        end = begin(fault, destination, cleaning) if fault.first else None
        story = Story(
            destination.exporter, destination.numbers, patience=length.patience, concurrency=concurrency,
            **length.options,
        )  # fmt: skip
        cleaning.callback(story.exporter.close, 0)

        # When its application sends on, and the fault comes and goes
        with story.application.sending(length.rate):
            for turn in range(length.rounds):
                one_round(story, destination, fault, length, cleaning, end if turn == 0 else None)

        # Then all that was accepted is there, once, in order where that is promised
        verdict = story.judge()
    matrix(Row(f"{destination.name} {name} {concurrency} {length.name}", verdict, ordered))
    verdict.hold(in_order=ordered)


def begin(fault: Fault, destination: Destination, cleaning: contextlib.ExitStack) -> Callable[[], None]:
    """Make it go wrong. Returns what makes it well again, which happens in any case."""
    undo = contextlib.ExitStack()
    cleaning.push(undo)
    undo.callback(fault.change, destination, False)
    try:
        fault.change(destination, True)
    except UnavailableError:
        undo.pop_all()
        raise
    return undo.close


def one_round(
    story: Story, destination: Destination, fault: Fault, length: Length, cleaning: contextlib.ExitStack,
    end: Callable[[], None] | None,
) -> None:  # fmt: skip
    """The fault comes while all is well, or is there (``end``), stays while the application sends on, and goes."""
    for _ in range(TRIES):
        before = 0
        if end is None:
            story.watch.wait_for(story.sent + length.rate // 10)
            before = story.watch.troubles
            end = or_skip("what the fault needs", lambda: begin(fault, destination, cleaning))
        story.application.wait_for(int(length.rate * length.seconds))
        if fault.bites:
            story.watch.wait_for_trouble(before)
        if fault.nibbles:
            assert poll(lambda: story.last_error() != "", length.patience), "all attempts were good"
        unheard = len(destination.numbers()) > story.watch.settled if fault.unheard else None
        story.lawful()
        end()
        story.recover()
        if unheard is not False:
            return
        end = None  # an answer broke off before the commit: once more
    raise AssertionError("all answers were heard")
