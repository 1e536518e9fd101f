"""What the tests of the SQL exporter share: batches without an engine, and a file with two views of it."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

from resilient_exporters.delivery.outcome import Batch, Record, Reject
from resilient_exporters.exporters.sql import SQLExporter

RUN = "00000000000000ab"


def batch(*datas: Any, start: int = 0, redelivered: bool = False, deadline: float = math.inf, **options: Any) -> Batch:
    records = [Record(run=RUN, offset=start + n, data=data, options=options) for n, data in enumerate(datas)]
    return Batch(records, redelivered=redelivered, deadline=deadline)


def reasons(outcomes: Any) -> dict[int, str]:
    """Place and reason of the rejected ones; all others must be delivered."""
    if outcomes is None:
        return {}
    assert all(each is None or isinstance(each, Reject) for each in outcomes)
    return {place: each.reason for place, each in enumerate(outcomes) if each is not None}


class Bench:
    """An exporter on a fresh file, and a second connection to look at it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[SQLExporter] = []
        self.other = sqlite3.connect(path, isolation_level=None)

    def exporter(self, table: str | None = "t", **options: Any) -> SQLExporter:
        options.setdefault("sqlite_busy_timeout", 0)
        made = SQLExporter(f"sqlite:///{self.path}", table, **options)
        made.connect()
        self._made.append(made)
        return made

    def rows(self, query: str = "SELECT * FROM t ORDER BY rowid") -> list[dict[str, Any]]:
        cursor = self.other.execute(query)
        names = [each[0] for each in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def close(self) -> None:
        for each in self._made:
            each.disconnect()
        self.other.close()
