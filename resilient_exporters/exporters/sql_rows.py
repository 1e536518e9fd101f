"""Records made into rows, tables and columns made for them where that is allowed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import Engine

from resilient_exporters.delivery.outcome import Batch, Record
from resilient_exporters.errors import ResilientExporterException
from resilient_exporters.exporters.sql_batch import Group, groups_of, upsert_columns
from resilient_exporters.exporters.sql_schema import Schema
from resilient_exporters.exporters.sql_table import Form, KnownTable, TableOptions
from resilient_exporters.exporters.sql_values import ColumnCodec
from resilient_exporters.exporters.sql_writer import Piece

__all__ = ["RowMaker"]

log = logging.getLogger(__name__)


class RowMaker:
    """Makes pieces (rows for one statement) of a batch.

    Args:
        options: about tables.
        schema: the tables of the database.
        table: table of records that name none, or None.
        upsert: upsert columns of records that name none.
        value_column: field name of a record that is neither a mapping nor a tuple.
        ledger: a ledger makes resends harmless, so that nothing need be said of tables without an id column.
    """

    def __init__(
        self,
        options: TableOptions,
        schema: Schema,
        *,
        table: str | None,
        upsert: tuple[str, ...],
        value_column: str,
        ledger: bool,
    ) -> None:
        self._options = options
        self._schema = schema
        self._table = table or ""
        self._upsert = upsert
        self._value_column = value_column
        self._ledger = ledger
        self._warned: set[str] = set()

    def pieces(self, engine: Engine, batch: Batch, refused: dict[int, str]) -> list[Piece]:
        """Rows for all records that can be rows.

        Args:
            engine: of the database; connected to only where a table is not known yet or has to be changed.
            batch: the records.
            refused: takes place and reason of those that cannot.

        Raises:
            HoldError: a table is missing and may not be made.
        """
        groups = groups_of(batch, self._address_of, self._value_column)
        by_table: dict[str, list[Group]] = {}
        for group in groups:
            by_table.setdefault(group.table, []).append(group)
        tables = {name: self._ready(engine, name, its) for name, its in by_table.items() if name}
        made = [self._piece(tables.get(group.table), group, refused) for group in groups]
        return [piece for piece in made if piece is not None]

    def _address_of(self, record: Record) -> tuple[str, tuple[str, ...]]:
        options = record.options
        if not options:
            return self._table, self._upsert
        upsert = options.get("upsert_on")
        return options.get("table") or self._table, self._upsert if upsert is None else upsert_columns(upsert)

    def _ready(self, engine: Engine, name: str, groups: Sequence[Group]) -> KnownTable | None:
        """The table, with all columns that the groups need and that may be made."""
        options = self._options
        table = self._schema.table(engine, name)
        if table is None:
            table = self._schema.create(engine, name, _fields(groups), groups[0].upsert)
        if options.new_columns in ("add", "json"):
            known = table
            wanting = [group for group in groups if any(known.find(key) is None for key in group.keys or ())]
            if wanting and options.new_columns == "add":
                table = self._schema.add(engine, table, _fields(wanting))
            elif wanting and table.find(options.extra_column) is None:
                table = self._schema.add_extra(engine, table)
        wants_id = options.id_column is not None and table.id_column is None and not all(each.upsert for each in groups)
        if wants_id and not self._ledger and name not in self._warned:
            self._warned.add(name)
            log.warning(
                "table %r has no column %r: a batch that is sent twice makes its rows twice; "
                "add the column (text, unique), or pass ledger=True, or id_column=None to accept it",
                name,
                options.id_column,
            )
        return table

    def _piece(self, table: KnownTable | None, group: Group, refused: dict[int, str]) -> Piece | None:
        if table is None:
            _refuse(group, refused, "no table: give table=… to the exporter or to send()")
            return None
        keys = table.tuple_keys(group.width) if group.keys is None else group.keys
        if keys is None:
            names = ", ".join(table.columns)
            _refuse(group, refused, f"a tuple of {group.width} for table {group.table!r} with {names}")
            return None
        form = table.form(keys, group.upsert, pack=self._options.new_columns == "json")
        if form.missing is not None:
            _refuse(group, refused, f"upsert_on: the record has no value for column {form.missing!r}")
            return None
        if form.lacking:
            _refuse(group, refused, f"column {form.lacking[0]!r} must have a value, and the record has none")
            return None
        if form.unknown or form.keys:
            _keep(group, self._sift(group, form), refused)
        if not form.insert and group.members:
            _refuse(group, refused, f"none of its fields is a column of table {group.table!r}")
            return None
        columns, plain = _columns(group, form, refused)
        return Piece(group.table, form, group.members, group.ids, columns, plain) if group.members else None

    def _sift(self, group: Group, form: Form) -> dict[int, str]:
        """Records with fields that have no place, or without a key. None has no need of a column."""
        reasons: dict[int, str] = {}
        if self._options.new_columns in ("add", "reject"):
            add = self._options.new_columns == "add"
            why = "none can be made (its name, or max_columns)" if add else "new_columns is 'reject'"
            for place, key in form.unknown:
                for n, value in enumerate(group.columns[place]):
                    if value is not None:
                        reasons.setdefault(n, f"table {group.table!r} has no column for field {key!r}, and {why}")
        for at in form.keys:
            place, codec = form.parts[at]
            for n, value in enumerate(group.columns[place]):
                if value is None:
                    reasons.setdefault(n, f"upsert_on: column {codec.name!r} is None, which equals nothing")
        return reasons


def _columns(group: Group, form: Form, refused: dict[int, str]) -> tuple[list[Sequence[Any]], list[bool]]:
    try:
        return _encoded(group, form)
    except (ResilientExporterException, TypeError, ValueError, ArithmeticError):
        reasons: dict[int, str] = {}
        for codec, values in _sources(group, form):
            for n, value in enumerate(values):
                if why := _misfit(codec, value):
                    reasons.setdefault(n, why)
        _keep(group, reasons, refused)
    return _encoded(group, form) if group.members else ([], [])


def _encoded(group: Group, form: Form) -> tuple[list[Sequence[Any]], list[bool]]:
    """The columns of the row, and of each whether it holds nothing but text, numbers, booleans and None."""
    places = form.check.places if form.check.places and form.check(group.rows) else ()
    columns: list[Sequence[Any]] = [group.ids] if form.with_id else []
    plain = [True] * len(columns)
    for place, codec in form.parts:
        values = group.columns[place]
        plain.append(place in places and codec.sound(values))
        columns.append(values if plain[-1] else codec.column(values))
    if form.extra is not None:
        columns.append(form.extra.column(_extra(group, form)))
        plain.append(False)
    return columns, plain


def _sources(group: Group, form: Form) -> list[tuple[ColumnCodec, Sequence[Any]]]:
    """Codec and values of each column in the order of the row (without the id): the fields, then the extra column."""
    found = [(codec, group.columns[place]) for place, codec in form.parts]
    if form.extra is not None:
        found.append((form.extra, _extra(group, form)))
    return found


def _extra(group: Group, form: Form) -> list[dict[str, Any]]:
    """The fields without a column of each record."""
    names = [key for _, key in form.unknown]
    rows = zip(*(group.columns[place] for place, _ in form.unknown), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _misfit(codec: ColumnCodec, value: Any) -> str | None:
    try:
        codec.one(value)
    except (ResilientExporterException, TypeError, ValueError, ArithmeticError) as error:
        text = str(error)
        return text if codec.name in text else f"column {codec.name!r} ({codec.shown}): {text}"
    return None


def _keep(group: Group, reasons: dict[int, str], refused: dict[int, str]) -> None:
    if reasons:
        refused.update({group.members[n]: why for n, why in reasons.items()})
        group.keep([n not in reasons for n in range(len(group.members))])


def _refuse(group: Group, refused: dict[int, str], why: str) -> None:
    refused.update(dict.fromkeys(group.members, why))


def _fields(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """All that is known of the values of each field."""
    found: dict[str, list[Any]] = {}
    for group in groups:
        for key, values in zip(group.keys or (), group.columns, strict=False):
            found.setdefault(key, []).extend(values)
    return found
