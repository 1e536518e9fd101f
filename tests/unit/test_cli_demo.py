from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from resilient_exporters.cli.demo_audit import Account, audit, in_database, in_file
from resilient_exporters.cli.demo_sensor import Journal

pytest.importorskip("sqlalchemy")


def test_the_demo_ends_with_nothing_lost_and_nothing_doubled() -> None:
    # Given a short story with all of its accidents
    command = [sys.executable, "-m", "resilient_exporters.cli", "demo", "--seconds", "8"]

    # When
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)

    # Then
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kill -9") >= 2
    table = re.findall(r"^ (file|SQLite) +([\d,]+) +([\d,]+) +(\d+) +(\d+) +(\d+) +(\d+) *$", done.stdout, re.MULTILINE)
    assert [row[0] for row in table] == ["file", "SQLite"]
    for _, accepted, delivered, *rest in table:
        assert accepted == delivered
        assert int(accepted.replace(",", "")) > 1000
        assert rest == ["0", "0", "0", "0"]
    place = re.search(r"queue directory +(\S+) +\(removed", done.stdout)
    assert place is not None
    assert not Path(place[1]).exists()


def test_the_audit_finds_what_is_lost_doubled_and_out_of_order() -> None:
    assert audit([0, 1, 2, 3], 4, []) == Account(4, 0, 0, 0, 0, 0)
    assert audit([0, 2, 2, 1], 4, []) == Account(3, 0, 1, 1, 1, 0)
    assert audit([0, 1], 4, [], [2]) == Account(2, 1, 1, 0, 0, 0)
    # 4 was in send() when the sender was killed: there or not there, both is well
    assert audit([0, 1, 2, 3, 5], 6, [4]).good
    assert audit([0, 1, 2, 3, 4, 5], 6, [4]) == Account(5, 0, 0, 0, 0, 1)
    assert not audit([], 1, []).good


def test_the_audit_reads_the_targets(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("".join(json.dumps({"seq": n}) + "\n" for n in (1, 2)))
    connection = sqlite3.connect(tmp_path / "d")
    connection.execute("CREATE TABLE readings (seq)")
    connection.executemany("INSERT INTO readings VALUES (?)", [(3,), (4,)])
    connection.commit()
    connection.close()

    assert in_file(tmp_path / "f") == [1, 2]
    assert in_database(tmp_path / "d") == [3, 4]
    assert in_file(tmp_path / "none") == in_database(tmp_path / "none") == []


def test_the_journal_outlives_its_writer(tmp_path: Path) -> None:
    # Given a writer that was killed between the two notes
    first = Journal(tmp_path / "j")
    first.returned(first.attempts(), 500)
    first.written(1000)
    first.attempts()

    # When the next one opens it
    second = Journal(tmp_path / "j")

    # Then it goes on behind, and knows which is unsure
    assert second.read()[:2] == (2, 1)
    assert second.attempts() == 2
    second.written(50)
    assert second.read()[2:] == (500, 1050)
