"""Ids of the records that were written, for tables that have no column for them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

__all__ = ["LEDGER_TABLE", "Ledger"]

LEDGER_TABLE: Final = "resilient_exporters_ids"
_ASKED: Final = 500  # ids in one question; databases limit the parameters of a statement (SQL Server: 2,100)


class Ledger:
    """The table ``resilient_exporters_ids``: table name, record id, and a number that grows with every batch.

    Written in the transaction of the rows themselves, so that rows and ids are there together or not at all. It keeps
    the newest ids only: a record is sent twice within a few batches, or not at all.

    Args:
        keep: number of ids kept, over all tables. There are never more than this, a tenth, and two batches.
        schema: database schema of the ledger, or None.
    """

    def __init__(self, keep: int, schema: str | None = None) -> None:
        self._keep = keep
        self._every = max(1, keep // 10)
        self._table = sa.Table(
            LEDGER_TABLE,
            sa.MetaData(),
            sa.Column("target", sa.String(128), primary_key=True),
            sa.Column("id", sa.String(64), primary_key=True),
            sa.Column("seq", sa.BigInteger, nullable=False, index=True),
            schema=schema,
        )
        self._lock = threading.Lock()
        self._made = False
        self._since = 0

    def make(self, engine: Engine) -> None:
        """Make the table if it is not there."""
        with self._lock:
            if not self._made:
                self._table.metadata.create_all(engine)
                self._made = True

    def forget(self) -> None:
        """Look again whether the table is there."""
        with self._lock:
            self._made = False

    def known(self, connection: Connection, target: str, ids: Sequence[str]) -> set[str]:
        """Those of the ids that were written to the table ``target`` before."""
        found: set[str] = set()
        columns = self._table.c
        for start in range(0, len(ids), _ASKED):
            asked = list(ids[start : start + _ASKED])
            select = sa.select(columns.id).where(columns.target == target, columns.id.in_(asked))
            found.update(connection.execute(select).scalars())
        return found

    def note(self, connection: Connection, target: str, ids: Sequence[str]) -> None:
        """Note ids as written. Raises an IntegrityError where one of them is known."""
        if not ids:
            return
        highest = connection.execute(sa.select(sa.func.max(self._table.c.seq))).scalar() or 0
        rows: list[dict[str, Any]] = [{"target": target, "id": each, "seq": highest + 1} for each in ids]
        connection.execute(sa.insert(self._table), rows)
        self._since += len(ids)
        if self._since >= self._every:
            self._since = 0
            self._prune(connection)

    def _prune(self, connection: Connection) -> None:
        seq = self._table.c.seq
        oldest = sa.select(seq).order_by(seq.desc()).offset(self._keep).limit(1)
        cut = connection.execute(oldest).scalar()
        if cut is not None:
            connection.execute(sa.delete(self._table).where(seq < cut))
