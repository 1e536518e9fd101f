"""Rows in a SQL database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from resilient_exporters.codec import decode, encode
from resilient_exporters.delivery.attempt import Unclear, ask
from resilient_exporters.delivery.outcome import Batch, Hold, Record, Reject, Retry, Split
from resilient_exporters.errors import InvalidConfigError, RetryableError
from resilient_exporters.exporters.sql import SQLExporter
from resilient_exporters.pipeline.checks import seconds
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.retries import SHORT, retrying
from resilient_exporters.pipeline.writers.outbox import MOST_ITEMS, OutboxWriter, Parcel

__all__ = ["OdoWriter", "SQLWriter"]

_LEDGER: Final = 100_000
_TYPES: Final = {"string": str, "integer": int, "number": float, "boolean": bool}


class SQLWriter(OutboxWriter):
    """Writes each record as a row, by the same means as ``SQLExporter``, but at once: the run ends when all is there.

    Rows go out in transactions that also note their ids: in the table ``resilient_exporters_ids``, or in
    ``id_column``. A transaction that is repeated after a crash adds nothing, so each record makes one row.
    """

    formats = False
    supported_options = {
        "items_per_buffer_write": Option(type=int, default=5000, help="Rows in a transaction."),
        "url": Option(type=str, help="SQLAlchemy URL of the database."),
        "table": Option(type=str, help="Name of the table."),
        "create_table": Option(type=bool, default=True, help="Make the table from the first records if it is missing."),
        "new_columns": Option(
            type=str, default="add", choices=("add", "ignore", "json", "reject"),
            help="A key without a column: add the column, leave the key out, pack it as JSON, or refuse the record.",
        ),
        "id_column": Option(type=str, default=None, help="Column for ids; default: a table of its own notes them."),
        "upsert_on": Option(type=ListOf(str), default=None, help="Columns that name a row that is to be replaced."),
        "timeout": Option(type=float, default=60.0, check=seconds, help="Seconds for a transaction."),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        items = self.read_option("items_per_buffer_write")
        upsert = self.read_option("upsert_on")
        url, table = self._target()
        try:
            self._exporter = SQLExporter(
                url, table, create_table=self.read_option("create_table"), new_columns=self.read_option("new_columns"),
                id_column=self.read_option("id_column"), upsert_on=None if upsert is None else tuple(upsert),
                columns=self._columns(), ledger=self.read_option("id_column") is None and upsert is None,
                ledger_size=max(_LEDGER, 2 * items), timeout=self.read_option("timeout"),
            )  # fmt: skip
        except InvalidConfigError as error:
            raise ConfigurationError(None, f"{type(self).__name__}: {error.content}") from error
        self._connected = False

    def _target(self) -> tuple[str, str]:
        return self.read_option("url"), self.read_option("table")

    def _columns(self) -> dict[str, type]:
        return {}

    def pack(self, record: BaseRecord) -> bytes:
        """With all its types."""
        return encode(dict(record))

    def deliver(self, parcel: Parcel, entries: list[bytes]) -> None:
        """Write the rows, in one transaction if that can be."""
        first = parcel.number * MOST_ITEMS
        self._put([Record(self.run, first + at, decode(entry), {}) for at, entry in enumerate(entries)])

    def _put(self, records: Sequence[Record]) -> None:
        answer = retrying(
            lambda: self._answer(records), f"writing to {self._exporter.address()}", SHORT, errors=RetryableError
        )
        if isinstance(answer, (Split, Reject)):
            if len(records) > 1:
                self._put(records[: len(records) // 2])
                self._put(records[len(records) // 2 :])
            else:
                self._refused_record(records[0], answer.reason)
        elif isinstance(answer, list):
            for record, one in zip(records, answer, strict=True):
                if isinstance(one, Reject):
                    self._refused_record(record, one.reason)

    def _answer(self, records: Sequence[Record]) -> Any:
        batch = Batch(records, redelivered=True, deadline=time.monotonic() + self._exporter.timeout)
        answer = ask(self._exporter, batch, self._connect)
        if isinstance(answer, Retry):
            raise RetryableError(None, answer.reason, after=answer.after)
        if isinstance(answer, Unclear):
            raise RetryableError(None, answer.reason)
        if isinstance(answer, Hold):
            raise PipelineError(None, f"{self._exporter.address()}: {answer.reason}")
        return answer

    def _connect(self) -> None:
        if not self._connected:
            self._exporter.connect()
            self._connected = True

    def _refused_record(self, record: Record, reason: str) -> None:
        self.bad_records.add(record.data, reason, part=self.part, where=self._exporter.address())
        self.items_count -= 1

    def close(self) -> None:
        """Close the connections."""
        self._exporter.disconnect()
        self._exporter.close(0)
        super().close()


class OdoWriter(SQLWriter):
    """The old system's name and options: rows of the fields of a JSON schema, in the table of an odo URI.

    Nested fields become columns ``outer.inner``; lists are stored as JSON; keys that the schema does not name are left
    out.
    """

    supported_options = {
        "url": Option(type=str, default=None, help="Read in odo_uri."),
        "table": Option(type=str, default=None, help="Read in odo_uri."),
        "schema": Option(type=dict, help="JSON schema of the records."),
        "odo_uri": Option(type=str, secret=True, help="SQLAlchemy URL and table: sqlite:///path.db::table."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._paths: dict[str, tuple[tuple[str, ...], type | None]] = {}
        super().__init__(*args, **kwargs)

    def _target(self) -> tuple[str, str]:
        url, mark, table = self.read_option("odo_uri").rpartition("::")
        if not mark or "://" not in url or not table:
            raise ConfigurationError(
                None, "odo_uri: give a database and a table, like postgresql://user@host/database::table"
            )
        return url, table

    def _columns(self) -> dict[str, type]:
        schema = self.read_option("schema")
        self._paths = dict(_fields(schema, ()))
        if not self._paths:
            raise ConfigurationError(
                None, f'schema={schema!r:.60}: it names no field: give {{"type": "object", "properties": {{…}}}}'
            )
        return {name: kind for name, (_, kind) in self._paths.items() if kind is not None}

    def pack(self, record: BaseRecord) -> bytes:
        """The fields of the schema."""
        return encode({name: _at(record, path) for name, (path, _) in self._paths.items()})


def _fields(
    schema: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[str, tuple[tuple[str, ...], type | None]]]:
    for name, inner in (schema.get("properties") or {}).items():
        here = (*path, str(name))
        if isinstance(inner, Mapping) and inner.get("properties"):
            yield from _fields(inner, here)
        else:
            kinds = inner.get("type") if isinstance(inner, Mapping) else None
            named = [one for one in (kinds if isinstance(kinds, list) else [kinds]) if one != "null"]
            kind = _TYPES.get(named[0]) if len(named) == 1 and isinstance(named[0], str) else None
            yield ".".join(here), (here, kind)


def _at(record: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(record, Mapping):
            return None
        record = record.get(name)
    return record
