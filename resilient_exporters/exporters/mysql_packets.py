"""Statements that fit into a packet. The server hangs up on a larger one, which looks like an outage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from resilient_exporters.exporters.mysql_text import row_texts
from resilient_exporters.exporters.sql_engine import Database
from resilient_exporters.exporters.sql_writer import Piece, Writer

__all__ = ["PacketWriter", "oversize"]

_LONGEST: Final = 1_000_000
"""Bytes of one INSERT with many rows: more gain nothing."""

_ROOM: Final = 1024  # the first row of a statement brings the text of the statement with it


class PacketWriter(Writer):
    """Writes rows by INSERT with as many rows as a packet takes."""

    def _put(self, connection: Connection, piece: Piece) -> None:
        raw: Any = connection.connection.dbapi_connection
        most = max(1, min(_LONGEST, packet(connection) - _ROOM))
        names = piece.form.names or ()
        marks = ", ".join([f"%({name})s" for name in names] or ["%s"] * len(piece.columns))
        head, tail = piece.form.insert.split(f"({marks})")
        with raw.cursor() as cursor:
            texts = row_texts(piece.columns, lambda value: str(cursor.mogrify("%s", (value,))))
            for rows in _portions(texts, most):
                cursor.execute(f"{head % ()}{rows}{tail}")


def _portions(rows: Sequence[str], most: int) -> Iterator[str]:
    """Rows with commas between them, in portions of so many bytes at most, of a row at least."""
    if 4 * sum(map(len, rows)) <= most:
        yield ", ".join(rows)
        return
    start, size = 0, 0
    for at, row in enumerate(rows):
        more = len(_encoded(row)) + 2
        if at > start and size + more > most:
            yield ", ".join(rows[start:at])
            start, size = at, 0
        size += more
    yield ", ".join(rows[start:])


def packet(connection: Connection) -> int:
    """The largest packet that the server takes, in bytes. Asked once a connection."""
    info = connection.info
    if "packet" not in info:
        info["packet"] = connection.execute(sa.text("SELECT @@max_allowed_packet")).scalar_one()
    return int(info["packet"])


def oversize(database: Database, pieces: Sequence[Piece]) -> dict[int, str]:
    """Place and reason of the rows that no packet takes.

    Asks on a new connection. Where the server does not answer, that says that it was an outage: the error is raised.
    """
    database.close()
    found: dict[int, str] = {}
    with database.engine.connect() as connection:
        most = packet(connection)
        raw: Any = connection.connection.dbapi_connection
        with raw.cursor() as cursor:
            for piece in pieces:
                rows = zip(*piece.columns, strict=True)
                for place, row, given in zip(piece.members, rows, piece.parameters(), strict=True):
                    if _about(row) * 2 < most - _ROOM:
                        continue  # all of it escaped would fit; to make the text of every row takes its time
                    size = len(_encoded(cursor.mogrify(piece.form.insert, given))) + 1  # and the command's byte
                    if size > most:
                        found[place] = (
                            f"{size} bytes as a statement, and the server takes {most}: raise max_allowed_packet, "
                            "on the server, and replay"
                        )
    return found


def _about(row: Sequence[Any]) -> int:
    """About the bytes of a row, rather more."""
    found = 0
    for each in row:
        found += 4 * len(each) if isinstance(each, str) else len(each) if isinstance(each, bytes) else 100
    return found


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
