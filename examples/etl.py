"""A nightly ETL job: yesterday's readings from a database, summed up by hour, to a CSV file and on to another system.

    python etl.py DIRECTORY [DAY]             the readings are those of DIRECTORY/readings.db
    BIGRAYS_DRY_RUN=1 python etl.py DIRECTORY only prints what it would do

It needs the extra `sql`. The database is any that SQLAlchemy knows: set BIGRAYS_DB_URL. What goes on to the other
system waits in a queue while that is not there, and a later run delivers it.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import sys
from pathlib import Path
from typing import Any

from resilient_exporters import RetryPolicy, tasks

DAYS: dict[str, Any] = {}
"""Values of the statements, by name; main() sets them. They are bound, never pasted into the SQL."""


class Readings(tasks.SQLQuery):
    """One row per reading, in a temporary file: a day's may be more than fits into memory."""

    query = "select sensor, time, temperature from readings where time >= :day and time < :next_day"
    params = DAYS
    stream = True
    retry_policy = RetryPolicy(wait=10, stop=6)  # a database that is away for a minute is waited for


class Hours(tasks.Task):
    """A task of our own: mean and extremes of each sensor and hour."""

    input = Readings.output

    def run(self) -> list[dict[str, Any]]:
        """From the rows of the query."""
        groups: dict[tuple[str, str], list[float]] = {}
        for row in self.input:
            groups.setdefault((row["sensor"], str(row["time"])[:13]), []).append(row["temperature"])
        return [
            {"sensor": sensor, "hour": hour, "mean": sum(some) / len(some), "min": min(some), "max": max(some)}
            for (sensor, hour), some in sorted(groups.items())
        ]


class ToFile(tasks.ToCSV):
    """For people; whole or not at all."""

    input = Hours.output
    filename = "{directory}/hours-{day}.csv"
    overwrite_if_exists = True


class ToOtherSystem(tasks.Export):
    """For programs: any exporter or pool, by its URL. Done when the records are safe in its queue."""

    input = Hours.output
    exporter = "file://{directory}/hours.jsonl"


class Clean(tasks.SQLExecute):
    """What was exported is not needed any more."""

    statement = "delete from readings where time >= :day and time < :next_day"
    params = DAYS


class Report(tasks.Task):
    """Runs whatever happened before."""

    run_with_exceptions = True

    def run(self) -> str:
        """One line for the log."""
        hours = Hours.output
        text = f"{len(hours)} hours" if isinstance(hours, list) else "no hours: something failed"
        logging.getLogger("etl").info("%s", text)
        return text


def main(directory: Path, day: dt.date) -> None:
    """Run the tasks in the order in which they stand above."""
    os.environ.setdefault("BIGRAYS_DB_URL", f"sqlite:///{directory / 'readings.db'}")
    DAYS.update(day=day.isoformat(), next_day=(day + dt.timedelta(days=1)).isoformat())
    tasks.update_format_kws(directory=directory, day=day.isoformat())
    tasks.bigrays_run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    yesterday = dt.datetime.now(tz=dt.timezone.utc).date() - dt.timedelta(days=1)
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else ".").absolute(),
        dt.date.fromisoformat(sys.argv[2]) if len(sys.argv) > 2 else yesterday,
    )
