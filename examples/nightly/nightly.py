"""The readings of yesterday, as a file for somebody else, every night: retried at once, and again every night after.

    rexport jobs run nightly.py:slot

READINGS (an SQLite database with a table ``readings``: time, sensor, value), INBOX (the folder that the other side
mounts) and STATE_DIRECTORY (set by systemd) come from the environment.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from resilient_exporters.jobs import Backlog, EventsExportJob, ExportError, ExportProcess, text_exporter

READINGS = Path(os.environ.get("READINGS", "readings.db"))
INBOX = Path(os.environ.get("INBOX", "inbox"))
OUTBOX = Path(os.environ.get("STATE_DIRECTORY", ".")) / "outbox"


class Nightly(EventsExportJob):
    """One day of readings, as a CSV file in the inbox of the other side."""

    _file = OUTBOX

    def prepare(self) -> None:
        """The file has the day in its name: sent again, it replaces itself and doubles nothing."""
        OUTBOX.mkdir(parents=True, exist_ok=True)
        self._file = OUTBOX / f"readings-{self.parms['date']}.csv"

    def export_events(self) -> int:
        """Write the file. A night without a reading sends nothing, and is no failure."""
        day = f"{self.parms['date']}%"
        with closing(sqlite3.connect(READINGS)) as database:
            rows = database.execute("SELECT time, sensor, value FROM readings WHERE time LIKE ? ORDER BY time", (day,))
            return text_exporter("text.csv", self._file).export_events(_events(rows))

    def send_data(self) -> None:
        """Copy it under another name, then rename it: the other side never sees half of it."""
        if not INBOX.is_dir():
            raise ExportError(f"{INBOX} is not there: is the share mounted?", subcode=1)
        part = INBOX / f".{self._file.name}.part"
        shutil.copyfile(self._file, part)
        part.replace(INBOX / self._file.name)

    def cleanup(self, error: ExportError | None = None) -> None:  # noqa: ARG002 - the next try writes it anew
        """Nothing is left here."""
        self._file.unlink(missing_ok=True)


def _events(rows: Any) -> Any:
    from datetime import datetime

    for time, sensor, value in rows:
        yield datetime.fromisoformat(time), "temperature", sensor, value, {"unit": "degC"}


# A night that fails is tried again in each of the next 60 nights, and kept apart after that.
slot = ExportProcess(Nightly, Backlog("nightly"), date_offset=1, max_attempts=60)
