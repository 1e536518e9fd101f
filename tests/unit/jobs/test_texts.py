from __future__ import annotations

import csv
import io
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.jobs import TEXT_EXPORTERS, Event, PendingRemoteJobs, text_exporter
from tests.programs import start

EVENTS: list[Any] = [
    Event(datetime(2026, 11, 21, 18, 0, 1, 234567), "temperature", "kitchen", 21.5, {"unit": "degC"}),
    (0.5, "text", 'a "b"; c', "x\ty", {}),
    (0, "state", "door", True, None),
]


def written(name: str, tmp_path: Path) -> bytes:
    path = tmp_path / "events.txt"
    assert text_exporter(name, path).export_events(EVENTS) == 3
    return path.read_bytes()


def test_csv_has_a_header_and_commas(tmp_path: Path) -> None:
    assert written("text.csv", tmp_path).decode() == (
        "timestamp,msec,var_type,var_name,value,units\n"
        "2026-11-21 18:00:01,234,temperature,kitchen,21.5,degC\n"
        '1970-01-01 00:00:00,500,text,"a ""b""; c",x\ty,\n'
        "1970-01-01 00:00:00,0,state,door,True,\n"
    )


def test_excel_gets_semicolons_and_quotes_around_what_is_no_number(tmp_path: Path) -> None:
    assert written("text.csv.excel", tmp_path).decode("utf-8-sig") == (
        '"timestamp";"msec";"var_type";"var_name";"value";"units"\r\n'
        '"2026-11-21 18:00:01";234;"temperature";"kitchen";21.5;"degC"\r\n'
        '"1970-01-01 00:00:00";500;"text";"a ""b""; c";"x\ty";""\r\n'
        '"1970-01-01 00:00:00";0;"state";"door";True;""\r\n'
    )


def test_tab_has_neither_header_nor_a_tab_that_is_none_of_its_own(tmp_path: Path) -> None:
    rows = list(csv.reader(io.StringIO(written("text.tab", tmp_path).decode()), delimiter="\t"))
    assert rows[0] == ["2026-11-21 18:00:01", "234", "temperature", "kitchen", "21.5", "degC"]
    assert rows[1][4] == "x\ty"
    assert {len(row) for row in rows} == {6}


@pytest.mark.parametrize("name", sorted(TEXT_EXPORTERS))
def test_it_works_step_by_step_as_of_old_and_leaves_an_open_file_open(name: str) -> None:
    out = io.StringIO()
    exporter = text_exporter(name, out)
    exporter.starting()
    for event in EVENTS:
        exporter.export_event(event)
    exporter.terminating()
    exporter.terminating()
    assert out.getvalue().count("1970") == 2
    assert exporter.count == 3


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'did you mean "text\.csv"'):
        text_exporter("text.cvs", tmp_path / "x")
    exporter = text_exporter("text.csv", tmp_path / "x")
    with pytest.raises(ValueError, match="starting"):
        exporter.export_event(EVENTS[0])
    with exporter, pytest.raises(ValueError, match="event="):
        exporter.export_event((1, 2))


def test_pending_remote_jobs_are_a_list_on_disk(tmp_path: Path) -> None:
    pending = PendingRemoteJobs(tmp_path / "deep" / "pending")
    assert len(pending) == 0
    for job_id in ("b", "a", "b", "https://host/job 1"):
        pending.append(job_id)
    again = PendingRemoteJobs(tmp_path / "deep" / "pending")
    assert again.items() == list(again) == ["b", "a", "https://host/job 1"]
    assert "a" in again
    again.remove("a")
    assert "a" not in pending
    assert len(pending) == 2
    with pytest.raises(ValueError, match="not in list"):
        pending.remove("a")


@pytest.mark.parametrize("job_id", ["", " a", "a\n", "a\nb", "a\x1eb", None, 5])
def test_ids_of_more_than_a_line_are_refused(tmp_path: Path, job_id: Any) -> None:
    pending = PendingRemoteJobs(tmp_path / "pending")
    with pytest.raises(ValueError, match="one line"):
        pending.append(job_id)
    assert pending.items() == []


def test_processes_share_the_list(tmp_path: Path) -> None:
    program = """
        import sys
        from resilient_exporters.jobs import PendingRemoteJobs
        for n in range(20):
            PendingRemoteJobs(sys.argv[1]).append(f"{sys.argv[2]}-{n}")
    """
    children = [start(program, tmp_path / "pending", name) for name in "ab"]
    for child in children:
        _, err = child.communicate()
        assert child.returncode == 0, err
    assert len(PendingRemoteJobs(tmp_path / "pending")) == 40
