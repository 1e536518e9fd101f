"""A slot against power cuts at every moment, in every state that the disk may be left in.

As test_crash_states.py: a slot is recorded call by call, states that a cut may leave are made up, and in each the next
slot comes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest

from resilient_exporters.jobs import Backlog, EventsExportJob, ExportProcess
from tests.laws import slot
from tests.laws.crash import trace
from tests.laws.crash.disk import held
from tests.laws.crash.states import State, lay_out, states
from tests.programs import environment, run

STATES = 400
SOAK = 1000
PROGRAM = Path(slot.__file__)


class Recovers(EventsExportJob):
    """Says what is run."""

    ran: ClassVar[list[str]] = []

    def export_events(self) -> int:
        return 1

    def send_data(self) -> None:
        self.ran.append(self.job_id)


def recorded(tmp_path: Path, seed: int) -> tuple[Path, list[trace.Event], list]:
    """A slot over a backlog of three, with failures."""
    try:
        library = trace.interposed(tmp_path)
    except trace.NoInterposer as error:
        pytest.skip(f"POWER CUTS ARE NOT TESTED: a program's calls cannot be recorded here: {error}")
    place = tmp_path / "place"
    place.mkdir()
    run(PROGRAM, place, seed, 3)
    root = place / "nightly"
    start = held(root)
    traced = trace.traced(library, root, tmp_path / "log")
    command = [sys.executable, "-W", "error", str(PROGRAM), str(place), str(seed)]
    done = subprocess.run(
        command, env={**environment(), **traced}, input="go\n", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return place, trace.read(tmp_path / "log"), start


def judged(state: State, place: Path, folder: Path) -> list[str]:
    """What is wrong with a state: nothing, it is hoped."""
    said = [(what, job_id) for what, job_id, when in slot.moments(place) if when < state.time]
    kept = {job_id for what, job_id in said if what == "kept"}
    taken = {job_id for what, job_id in said if what == "taken"}
    over = {job_id for what, job_id in said if what == "succeeded"}
    lay_out(state.tree, folder / "nightly")
    backlog = Backlog("nightly", folder)
    Recovers.ran = []
    process = ExportProcess(Recovers, backlog)
    code = process.run(1, 0)
    ran = set(Recovers.ran)
    wrong = [f"{job_id} is lost" for job_id in kept - taken - ran]
    wrong += [f"{job_id} had succeeded, and ran again" for job_id in over & ran]
    wrong += [f"code {code}: {process.report}"] * (code != 0)
    wrong += [f"{path} was set aside" for path in backlog.corrupt()]
    wrong += [f"{job_id} waits still" for job_id in backlog]
    return wrong


def cut(tmp_path: Path, seed: int, count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    place, events, start = recorded(tmp_path, seed)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # of the next slot nothing is cut
    found: Counter[str] = Counter()
    for number, state in enumerate(states(events, start, place / "nightly", count, str(seed))):
        folder = tmp_path / f"state-{number}"
        folder.mkdir()
        for text in judged(state, place, folder):
            found[f"after {state.at} of {len(events)} events, {state.how}: {text}"] += 1
        found["states"] += 1
    return found


def test_no_power_cut_loses_a_job_or_repeats_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cut(tmp_path, 11, STATES, monkeypatch)
    assert found.pop("states") > STATES / 4
    assert not found


def test_a_backlog_that_syncs_nothing_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the same program, in which no sync is recorded
    place, events, start = recorded(tmp_path, 11)
    unsynced = [event for event in events if event.kind not in (trace.BEGIN, trace.END)]
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    wrong = 0
    for number, state in enumerate(states(unsynced, start, place / "nightly", 60, "1")):
        folder = tmp_path / f"state-{number}"
        folder.mkdir()
        wrong += bool(judged(state, place, folder))
    assert wrong


@pytest.mark.soak
def test_power_cuts_of_twenty_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total: Counter[str] = Counter()
    for seed in range(20):
        place = tmp_path / str(seed)
        place.mkdir()
        total += cut(place, seed, SOAK, monkeypatch)
    print(total)
    assert list(total) == ["states"]
