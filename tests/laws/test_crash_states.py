"""Laws 1, 2, 3, 5 and 8 against power cuts at every moment, in every state that the disk may be left in.

Programs are recorded call by call (``crash/interposer.c``), and of each recording the states are made up that a cut
may leave (``crash/disk.py`` says by which models): all that was synced, and any part of what was not. The ring is lost
in each. Every state is opened by a fork that knows of no other, and judged (``crash/law.py``):

- it opens, and delivery goes on;
- what was accepted longer ago than ``loss_window`` is there, in order and unaltered, and nothing else is;
- nothing comes twice; what a target had taken before the cut may come again, under its old id, in a batch that is
  marked as redelivered, and only if the queue had not noted it on disk yet;
- the counters add up.

Which saves came late (a busy machine) the queue counts itself; a cut before such a save ended is judged by all but
the window.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.laws.crash import trace
from tests.laws.crash.disk import EXT4, POSIX, Disk, Held, Tree
from tests.laws.crash.rig import Recording, Report, Rig, told
from tests.laws.crash.scenario import SCENARIOS
from tests.laws.crash.trace import Event, NoInterposer, interposed

_SOAK = 10_000


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("crash")
    try:
        library = interposed(folder)
    except NoInterposer as error:
        pytest.skip(f"CRASH STATES ARE NOT TESTED: a program's calls cannot be recorded here: {error}")
    with Rig(library, folder) as ready:
        yield ready


def laws(report: Report) -> set[str]:
    return {finding.law for _, findings, _ in report.found for finding in findings}


@pytest.fixture(scope="module")
def recordings(rig: Rig, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Recording]]]:
    """Two at a time, for the tests that were asked for: recorded programs wait most of their time."""
    names = [
        str(item.callspec.params["scenario"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_no_cut_breaks_a_law"
    ]
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(rig.record, name, "1") for name in names}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_cut_breaks_a_law(rig: Rig, recordings: dict[str, Future[Recording]], scenario: str) -> None:
    # Given a program as it ran
    recording = recordings[scenario].result()

    # When the power is cut at some moments
    report = rig.judge(recording, 25)

    # Then
    print(report)
    assert not report.found, told(report.found)
    assert report.states > 10
    if scenario != "rescue":  # which begins with a damaged one
        assert not report.aside


@pytest.mark.soak
def test_ten_thousand_states(rig: Rig) -> None:
    # Given each program, again and again; When: as above; Then: as above
    reports: list[Report] = []
    while sum(report.states for report in reports) < _SOAK:
        for scenario in SCENARIOS:
            reports.append(rig.judge(rig.record(scenario, f"soak {len(reports)}"), 400))
            print(reports[-1], flush=True)
    print(f"{sum(report.cuts for report in reports)} cuts, {sum(report.states for report in reports)} states")
    found = [one for report in reports for one in report.found]
    assert not found, told(found)


# That the rig can fail: programs that break their promise are caught.


@pytest.mark.parametrize(
    ("mutation", "scenario", "law", "cuts"),
    [
        ("without any sync", "zero", "lost", 60),
        ("without a sync of directories", "zero", "lost", 60),
        ("without a sync at commits", "drain", "noted", 320),  # one cut in 35 shows it
        ("letters before rows", "letters", "lost", 250),  # for the few calls between two transactions
    ],
)
def test_a_broken_program_is_caught(rig: Rig, mutation: str, scenario: str, law: str, cuts: int) -> None:
    # Given a program that leaves out something
    recording = rig.record(scenario, "1", mutation=mutation)

    # When
    report = rig.judge(recording, cuts)

    # Then
    print(report)
    assert law in laws(report)


# The model of the disk.

ROOT = Path("/root-of-a-test")


def disk(model: str) -> Disk:
    return Disk(ROOT, [Held("", (1, 1), None), Held("old", (1, 2), b"a" * 512)], model, b"?" * 64)


def event(kind: str, inode: int = 0, *, path: str = "", second: str = "", at: int = 0, data: bytes = b"") -> Event:
    return Event(kind, 7, 0.0, (1, inode), at, 0, f"{ROOT}/{path}", f"{ROOT}/{second}", data)


def synced(inode: int) -> list[Event]:
    return [event(trace.BEGIN, inode), event(trace.END, inode)]


def followed(model: str, events: list[Event]) -> Disk:
    made = disk(model)
    for one in events:
        made.follow(one)
    return made


def chances(made: Disk, number: int = 300) -> list[Tree]:
    return [made.chance(random.Random(seed)) for seed in range(number)]


@pytest.mark.parametrize("model", [POSIX, EXT4])
def test_only_what_was_synced_before_is_certain(model: str) -> None:
    made = followed(model, [event("W", 2, data=b"b" * 512), *synced(2), event("W", 2, data=b"c" * 512)])
    assert made.floor() == {"old": b"b" * 512}
    assert made.ceiling() == {"old": b"c" * 512}
    assert {tree["old"] for tree in chances(made)} == {b"b" * 512, b"c" * 512}


@pytest.mark.parametrize("model", [POSIX, EXT4])
def test_what_was_written_while_a_sync_ran_is_not_certain(model: str) -> None:
    made = followed(model, [event(trace.BEGIN, 2), event("W", 2, data=b"b" * 512), event(trace.END, 2)])
    assert made.floor() == {"old": b"a" * 512}


@pytest.mark.parametrize("model", [POSIX, EXT4])
def test_a_write_may_be_torn_at_any_sector_and_nowhere_else(model: str) -> None:
    made = followed(model, [event("W", 2, data=b"b" * 1536), *synced(2), event("W", 2, data=b"c" * 1536)])
    found = {tree["old"] for tree in chances(made)}
    assert len(found) == 8
    assert all(content[at] == content[at + 511] for content in found if content for at in (0, 512, 1024))


def test_a_name_is_certain_once_its_directory_was_synced_and_by_posix_not_before() -> None:
    events = [event("C", 3, path="new"), event("W", 3, data=b"n" * 10), *synced(3)]
    for model, certain in ((POSIX, False), (EXT4, True)):
        assert ("new" in followed(model, events).floor()) is certain
        assert followed(model, [*events, *synced(1)]).floor()["new"] == b"n" * 10


@pytest.mark.parametrize("model", [POSIX, EXT4])
def test_a_rename_is_there_or_not(model: str) -> None:
    made = followed(model, [event("C", 3, path="new"), *synced(3), *synced(1), event("R", path="new", second="old")])
    assert {frozenset(tree) for tree in chances(made)} == {frozenset({"new", "old"}), frozenset({"old"})}


def test_a_missing_directory_takes_what_is_in_it() -> None:
    events = [event("M", 3, path="folder"), event("C", 4, path="folder/new"), *synced(3)]
    assert followed(POSIX, events).floor() == {"old": b"a" * 512}
    assert followed(POSIX, [*events, *synced(1)]).floor() == {"old": b"a" * 512, "folder": None, "folder/new": b""}


def test_a_journal_keeps_the_order_of_names_and_posix_does_not() -> None:
    events = [event("C", 3, path="first"), event("C", 4, path="second")]
    both, one = frozenset({"old", "first", "second"}), frozenset({"old", "first"})
    assert {frozenset(tree) for tree in chances(followed(EXT4, events))} == {frozenset({"old"}), one, both}
    assert {frozenset(tree) for tree in chances(followed(POSIX, events))} == {
        frozenset({"old"}), one, both, frozenset({"old", "second"}),
    }  # fmt: skip


def test_a_longer_file_may_hold_noise_by_posix_and_never_in_a_journal() -> None:
    events = [event("W", 2, at=512, data=b"b" * 512)]
    assert {tree["old"] for tree in chances(followed(EXT4, events))} == {b"a" * 512, b"a" * 512 + b"b" * 512}
    assert {tree["old"] for tree in chances(followed(POSIX, events))} == {
        b"a" * 512 + rest for rest in (b"", b"b" * 512, bytes(512), b"?" * 512)
    }


@pytest.mark.parametrize("model", [POSIX, EXT4])
def test_what_is_cut_off_does_not_come_back_with_what_is_written_after(model: str) -> None:
    made = followed(model, [event("T", 2, at=0), *synced(2), event("W", 2, at=256, data=b"b" * 256)])
    assert made.floor() == {"old": b""}
    assert all(b"a" not in (tree["old"] or b"") for tree in chances(made))
