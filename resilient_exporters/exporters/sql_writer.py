"""Rows into tables, inside a transaction that the caller holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from resilient_exporters.exporters.sql_errors import judge, reason
from resilient_exporters.exporters.sql_ledger import Ledger
from resilient_exporters.exporters.sql_table import Form

__all__ = ["Piece", "Writer"]

_ASKED = 500  # ids in one question; databases limit the parameters of a statement


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows for one statement.

    Attributes:
        table: table name.
        form: the statement.
        members: places of the records in the batch.
        ids: their record ids.
        columns: their values, column by column, in the order of the statement's parameters.
        plain: of each column whether it holds nothing but text, finite numbers, booleans and None; as far as known.
    """

    table: str
    form: Form
    members: Sequence[int]
    ids: Sequence[str]
    columns: Sequence[Sequence[Any]]
    plain: Sequence[bool] = ()

    def part(self, start: int, stop: int) -> Piece:
        """Some of the rows."""
        columns = [column[start:stop] for column in self.columns]
        return replace(self, members=self.members[start:stop], ids=self.ids[start:stop], columns=columns)

    def parameters(self) -> list[Any]:
        """The rows as the driver takes them: tuples, or mappings by parameter name."""
        rows = zip(*self.columns, strict=True)
        names = self.form.names
        return list(rows) if names is None else [dict(zip(names, row, strict=True)) for row in rows]

    def without(self, known: AbstractSet[Any], marks: Sequence[Any]) -> Piece:
        """The rows whose mark is not known."""
        places = [place for place, mark in enumerate(marks) if mark not in known]
        return replace(
            self,
            members=[self.members[place] for place in places],
            ids=[self.ids[place] for place in places],
            columns=[[column[place] for place in places] for column in self.columns],
        )


class Writer:
    """Writes pieces.

    Args:
        ledger: where the ids of written records stand, or None.
    """

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger

    def write(self, connection: Connection, piece: Piece, *, look: bool) -> None:
        """Write all rows with one statement.

        Args:
            connection: inside a transaction.
            piece: the rows.
            look: some may be there already; where the statement itself does not pass over them, look for them first.

        Raises:
            Exception: what the database or driver raised; nothing is rolled back here.
        """
        if self._ledger is not None:
            if look:
                piece = piece.without(self._ledger.known(connection, piece.table, piece.ids), piece.ids)
            self._ledger.note(connection, piece.table, piece.ids)
        elif look and piece.form.known is not None and piece.form.id_at is not None:
            piece = piece.without(self.there(connection, piece), piece.columns[piece.form.id_at])
        if piece.members:
            self._put(connection, piece)

    def _put(self, connection: Connection, piece: Piece) -> None:
        """Hand the rows to the driver."""
        if connection.dialect.name == "sqlite":
            _write_sqlite(connection, piece)
            return
        if piece.form.update is not None:
            _update_or_insert(connection, piece.form, piece.form.update, zip(*piece.columns, strict=True))
        else:
            connection.exec_driver_sql(piece.form.insert, piece.parameters())

    def isolate(self, connection: Connection, piece: Piece) -> dict[int, str]:
        """Write the rows that the database takes and find those it refuses, by halves between savepoints.

        Args:
            connection: inside a transaction.
            piece: rows of which at least one is bad.

        Returns:
            Place in the batch and the database's reason, for each row refused.

        Raises:
            Exception: anything that is not the fault of a row (lost connection, lock, rights).
        """
        try:
            with connection.begin_nested():
                self._write_doubtful(connection, piece)
        except Exception as error:
            if judge(error, connection.dialect.name) != "data":
                raise
            if len(piece.members) == 1:
                return {piece.members[0]: _blame(piece, error)}
        else:
            return {}
        middle = len(piece.members) // 2
        first = self.isolate(connection, piece.part(0, middle))
        return first | self.isolate(connection, piece.part(middle, len(piece.members)))

    def _write_doubtful(self, connection: Connection, piece: Piece) -> None:
        """As `write`, for rows of which some may be refused, or be there."""
        self.write(connection, piece, look=True)

    def there(self, connection: Connection, piece: Piece) -> set[Any]:
        """Those ids of a piece that its table holds."""
        found: set[Any] = set()
        at, known = piece.form.id_at, piece.form.known
        if at is None or known is None:
            return found
        ids = piece.columns[at]
        for start in range(0, len(ids), _ASKED):
            found.update(connection.execute(known, {"ids": list(ids[start : start + _ASKED])}).scalars())
        return found


def _write_sqlite(connection: Connection, piece: Piece) -> None:
    """By the driver itself and many rows a statement: half the time of SQLAlchemy's way, row by row."""
    raw: Any = connection.connection.dbapi_connection
    columns = piece.columns
    done, width, count = 0, len(columns), len(piece.members)
    if piece.form.bulk is not None and count >= 50:
        rows, text = piece.form.bulk()
        if done := count - count % rows:
            flat: list[Any] = [None] * (done * width)
            for place, column in enumerate(columns):
                flat[place::width] = column[:done]
            step = rows * width
            raw.executemany(text, [flat[start : start + step] for start in range(0, len(flat), step)])
    if done < count:
        raw.executemany(piece.form.insert, zip(*[column[done:] for column in columns], strict=True))


def _update_or_insert(connection: Connection, form: Form, update: sa.Update, rows: Iterable[tuple[Any, ...]]) -> None:
    """The upsert of databases that have none in one statement."""
    for row in rows:
        updated = connection.execute(update, {f"p{place}": value for place, value in enumerate(row)})
        if updated.rowcount == 0:
            given: Any = row if form.names is None else dict(zip(form.names, row, strict=True))
            connection.exec_driver_sql(form.insert, given)


def _blame(piece: Piece, error: Exception) -> str:
    """Why a row was refused. Drivers do not say which value they could not bind."""
    text = reason(error)
    if not isinstance(error, OverflowError | UnicodeEncodeError):
        return text
    codecs = [codec for _, codec in piece.form.parts]
    row = [column[0] for column in piece.columns[piece.form.with_id :]]
    for codec, value in zip(codecs, row, strict=False):
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"column {codec.name!r} ({codec.shown}): a whole number beyond 64 bits; make it TEXT. {text}"
        if isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
            return f"column {codec.name!r} ({codec.shown}): a lone surrogate, which no encoding has. {text}"
    return text
