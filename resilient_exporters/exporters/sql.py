"""The exporter for SQL databases, on SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from resilient_exporters.delivery.forks import Whole
from resilient_exporters.delivery.outcome import Batch, Outcome, Reject, Split
from resilient_exporters.errors import InvalidConfigError, MissingModuleError
from resilient_exporters.exporter import Exporter
from resilient_exporters.exporters.parsed_url import arguments
from resilient_exporters.exporters.sql_batch import upsert_columns

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

    from resilient_exporters.exporters.parsed_url import ParsedURL
    from resilient_exporters.exporters.sql_engine import Session
    from resilient_exporters.exporters.sql_ledger import Ledger
    from resilient_exporters.exporters.sql_writer import Piece, Writer

__all__ = ["SQLExporter"]


class SQLExporter(Exporter):
    """Rows in a SQL database: a mapping is a row, its keys are columns; a tuple is a row in table order.

    Every batch is one transaction. A record that is sent twice (after a time-out, a crash, a restart) makes one row:
    its id is written to ``id_column``, or noted in a ledger table with ``ledger=True``, or the row is found again by
    ``upsert_on``. A row that the database refuses becomes a dead letter with the database's reason, and the others of
    its batch are written. docs/exporters/sql.md has the tables of types and of errors.

    Args:
        url: SQLAlchemy URL (text or object), or an Engine of yours, which is used as it is and never disposed of.
            Nothing is connected before the first record is delivered.
        table: table for records without an option ``table`` of their own.
        schema: database schema of the tables, or None for the default one.
        create_table: make a missing table from the first batch for it. None: True on SQLite, where the file is ours
            as a rule, and False on servers, where a missing table holds the records until someone makes it.
        create_table_if_inexistent: the original system's name of ``create_table``.
        new_columns: what becomes of a field without a column: "add" makes one, "ignore" leaves the field out, "json"
            packs all of them into ``extra_column``, "reject" makes a dead letter of the record (replay it once the
            column is there). None: "add" where tables are made, else "reject", which is the only one of the others
            that neither loses data nor holds up other records.
        columns: types for columns that are made, as Python types or SQLAlchemy types: ``{"level": float}``. Others are
            told from the values of the first batch.
        id_column: column that takes the record id ("run-offset"), primary key of tables that are made. A table
            without it is written to all the same, with one warning that a resend may make a second row. None: none.
        upsert_on: columns that identify a row to be updated where it is there: a name, or a tuple or list of names.
            Primary key of tables that are made; other tables need a UNIQUE constraint on exactly these.
        ledger: note record ids in a table ``resilient_exporters_ids``, in the same transaction: exactly once for a
            table that must not be changed.
        ledger_size: number of ids kept there, >= 1000.
        extra_column: column for ``new_columns="json"``.
        value_column: column for a record that is neither a mapping nor a tuple.
        max_columns: no column is added to a table that has this many.
        nan: "null" stores NULL where the database has no NaN (SQLite, MySQL, SQL Server), "text" the text NaN (SQLite),
            "reject" makes a dead letter.
        sqlite_synchronous: "full" syncs every transaction; with "normal" a power cut may take the last ones, although
            the records counted as delivered.
        sqlite_busy_timeout: seconds to wait for another writer before the batch is retried later.
        **options: those of `Exporter`. ``concurrency`` is 1 on SQLite (one writer at a time) and with ``upsert_on``
            (the later record must win), else "auto".

    Record options (``send(data, **options)``): ``table``, ``upsert_on``.

    Raises:
        MissingModuleError: SQLAlchemy or the driver of the URL is not installed.
        InvalidConfigError: an option has a value it cannot have.
    """

    kind: ClassVar[str] = "sql"
    concurrency: ClassVar[int | str] = "auto"
    record_options: ClassVar[frozenset[str] | None] = frozenset({"table", "upsert_on"})
    url_parameters: ClassVar[frozenset[str]] = frozenset({
        "application_name", "charset", "connect_timeout", "driver", "Encrypt", "gssencmode", "host", "options",
        "service",
        "ssl_ca", "ssl_cert", "ssl_key", "sslcert", "sslkey", "sslmode", "sslrootcert", "target_session_attrs",
        "TrustServerCertificate", "unix_socket",
    })  # fmt: skip
    """Query parameters of a URL that are the driver's, not ours (for `from_url`)."""

    def __init__(
        self,
        url: str | URL | Engine,
        table: str | None = None,
        *,
        schema: str | None = None,
        create_table: bool | None = None,
        create_table_if_inexistent: bool | None = None,
        new_columns: Literal["add", "ignore", "json", "reject"] | None = None,
        columns: Mapping[str, Any] | None = None,
        id_column: str | None = "_id",
        upsert_on: str | Sequence[str] | None = None,
        ledger: bool = False,
        ledger_size: int = 100_000,
        extra_column: str = "extra",
        value_column: str = "value",
        max_columns: int = 500,
        nan: Literal["null", "text", "reject"] = "null",
        sqlite_synchronous: Literal["normal", "full"] = "full",
        sqlite_busy_timeout: float = 5.0,
        **options: Any,
    ) -> None:
        _one_of("new_columns", new_columns, ("add", "ignore", "json", "reject", None))
        _one_of("nan", nan, ("null", "text", "reject"))
        _one_of("sqlite_synchronous", sqlite_synchronous, ("normal", "full"))
        if ledger_size < 1000:
            raise InvalidConfigError(None, f"ledger_size={ledger_size!r}: must be 1000 ids or more, for a few batches")
        if max_columns < 1 or sqlite_busy_timeout < 0:
            raise InvalidConfigError(
                None, f"max_columns={max_columns!r}, sqlite_busy_timeout={sqlite_busy_timeout!r}: must be >= 1 and >= 0"
            )
        if table == "":
            raise InvalidConfigError(None, f"table={table!r}: must be the name of a table, or None")
        try:
            from resilient_exporters.exporters.sql_columns import declared
            from resilient_exporters.exporters.sql_engine import Database
            from resilient_exporters.exporters.sql_ledger import Ledger
            from resilient_exporters.exporters.sql_rows import RowMaker
            from resilient_exporters.exporters.sql_schema import Schema
            from resilient_exporters.exporters.sql_table import TableOptions
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"{type(self).__name__} needs {error.name}: pip install 'resilient-exporters[sql]'"
            ) from error
        self._table = table
        self._upsert = upsert_columns(upsert_on)
        self._database = Database(url, synchronous=sqlite_synchronous, busy_timeout=sqlite_busy_timeout)
        self._whole = Whole() if self.dialect == "sqlite" else nullcontext()
        if create_table is None:
            create_table = create_table_if_inexistent
        if create_table is None:
            create_table = self.dialect == "sqlite"
        tables = TableOptions(
            schema=schema,
            create=create_table,
            new_columns=new_columns or ("add" if create_table else "reject"),
            columns=declared(columns or {}, self.dialect),
            id_column=None if ledger else id_column,
            extra_column=extra_column,
            max_columns=max_columns,
            nan=nan,
            **self._table_hooks(),
        )
        self._schema = Schema(tables, self.address())
        self._ledger = Ledger(ledger_size, schema) if ledger else None
        self._writer = self._new_writer(self._ledger, schema)
        self._maker = RowMaker(
            tables, self._schema, table=table, upsert=self._upsert, value_column=value_column, ledger=ledger
        )
        if options.get("concurrency") is None and (self.dialect == "sqlite" or self._upsert):
            options["concurrency"] = 1
        super().__init__(**options)
        self._database.session = self._session()

    # -- what the exporters for one kind of server do in another way

    def _session(self) -> Session:
        """What a connection is to be like. ``timeout`` is known."""
        from resilient_exporters.exporters.sql_engine import Session

        return Session()

    def _table_hooks(self) -> dict[str, Any]:
        """Further fields of `TableOptions`."""
        return {}

    def _new_writer(self, ledger: Ledger | None, schema: str | None) -> Writer:  # noqa: ARG002 - for others
        from resilient_exporters.exporters.sql_writer import Writer

        return Writer(ledger)

    def _oversize(self, error: Exception, pieces: Sequence[Piece]) -> dict[int, str]:  # noqa: ARG002 - for others
        """Place and reason of the rows that are why the database hung up; none: it was an outage."""
        return {}

    # --

    @classmethod
    def from_url(cls, parsed: ParsedURL, options: dict[str, Any]) -> SQLExporter:
        """Make one from a SQLAlchemy URL with our options in its query, as ``sqlite:///x.db?table=readings``."""
        given, rest = arguments(cls, parsed, options, passed_on=cls.url_parameters, taken={"url"})
        return cls(parsed.with_query(rest), **given)

    @property
    def dialect(self) -> str:
        """Name of the SQLAlchemy dialect, such as "sqlite", "postgresql" or "mysql"."""
        return self._database.dialect

    def address(self) -> str:
        """The database, without account, password and driver options, and the default table."""
        return self._database.address + (f"#{self._table}" if self._table else "")

    def connect(self) -> None:
        """Open a connection, so that a wrong address or account is known before rows are made.

        Raises:
            RetryableError: the database does not answer.
            HoldError: it answers that something has to be mended.
        """
        try:
            self._database.open()
        except Exception as error:
            raise self._told(error) from error

    def disconnect(self) -> None:
        """Close the pooled connections (not those of an Engine that was given)."""
        self._database.close()
        if self._schema.older_than(_LASTING):
            self._schema.forget()

    def export(self, batch: Batch) -> Outcome | Sequence[Outcome | None] | None:
        """Write a batch in one transaction.

        A table that is not what it was is looked up again, once. Errors become those of this package, by the table in
        docs/exporters/sql.md.
        """
        with self._whole:
            return self._write_batch(batch)

    def _write_batch(self, batch: Batch) -> Outcome | Sequence[Outcome | None] | None:
        try:
            if self._database.moved():
                self._look_again()
            try:
                return self._attempt(batch)
            except Exception as error:
                if self._judge(error) != "schema":
                    raise
            self._look_again()
            return self._attempt(batch)
        except Exception as error:
            verdict = self._judge(error)
            if verdict == "split":
                return Split(str(self._told(error)))
            if verdict != "retry":
                self._schema.forget()  # it may be mended there
            raise self._told(error) from error

    def _attempt(self, batch: Batch) -> Sequence[Outcome | None] | None:
        refused: dict[int, str] = {}
        pieces = self._maker.pieces(self._database.engine, batch, refused)
        if refused and self._schema.older_than(_FRESH):
            # What is refused here is gone from the queue: only by what the tables are now.
            self._look_again()
            refused = {}
            pieces = self._maker.pieces(self._database.engine, batch, refused)
        if pieces:
            if self._ledger is not None:
                self._ledger.make(self._database.engine)
            try:
                self._write(batch, pieces, look=batch.redelivered)
            except Exception as error:
                verdict = self._judge(error)
                if verdict == "data":
                    refused |= self._isolate(batch, pieces)
                elif verdict in ("retry", "split") and (found := self._oversize(error, pieces)):
                    refused |= found
                    self._write(batch, [each.without(found.keys(), each.members) for each in pieces], look=True)
                else:
                    raise
            self._database.settled()
        if not refused:
            return None
        return [Reject(refused[place]) if place in refused else None for place in range(len(batch))]

    def _write(self, batch: Batch, pieces: Sequence[Piece], *, look: bool) -> None:
        with self._database.transaction(batch.deadline) as connection:
            for piece in pieces:
                if piece.members:
                    self._writer.write(connection, piece, look=look)

    def _isolate(self, batch: Batch, pieces: Sequence[Piece]) -> dict[int, str]:
        refused: dict[int, str] = {}
        with self._database.transaction(batch.deadline) as connection:
            for piece in pieces:
                refused |= self._writer.isolate(connection, piece)
        if refused:
            # A row that another attempt of ours committed meanwhile is refused as a duplicate, and yet it is there.
            with self._database.engine.connect() as connection:
                for piece in pieces:
                    doubted = [n for n, place in enumerate(piece.members) if place in refused]
                    if doubted and piece.form.known is not None and piece.form.with_id:
                        there = self._writer.there(connection, piece)
                        for n in doubted:
                            if piece.ids[n] in there:
                                del refused[piece.members[n]]
        return refused

    def _look_again(self) -> None:
        self._schema.forget()
        if self._ledger is not None:
            self._ledger.forget()

    def _judge(self, error: BaseException) -> str:
        from resilient_exporters.exporters.sql_errors import judge

        return judge(error, self.dialect)

    def _told(self, error: Exception) -> Exception:
        from resilient_exporters.exporters.sql_errors import judge, outcome_error

        return outcome_error(error, judge(error, self.dialect), self.address())


_FRESH: Final = 1.0
"""Seconds for which what is known of the tables is good enough to refuse a record."""

_LASTING: Final = 3600.0
"""Seconds for which it outlives a connection: to look again is a dozen round trips, on a bad link all the time it has.
What is changed there meanwhile is found by the errors that it makes; a new column may go unused for so long."""


def _one_of(name: str, value: object, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        shown = ", ".join(repr(each) for each in allowed)
        raise InvalidConfigError(None, f"{name}={value!r}: must be one of {shown}")
