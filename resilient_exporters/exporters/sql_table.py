"""A table as the database has it now, and the statements that write to it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import TypeEngine

from resilient_exporters.exporters.sql_check import RowCheck
from resilient_exporters.exporters.sql_values import ColumnCodec, Nan

__all__ = ["Form", "KnownTable", "NewColumns", "TableOptions"]

NewColumns = Literal["add", "ignore", "json", "reject"]
_FORMS_KEPT: Final = 256  # statements kept a table; one with ever new fields starts over
_PARAMETERS: Final = 999  # of a statement, in SQLite before 3.32
_BULK_ROWS: Final = 50  # more gain nothing
_CASELESS: Final = frozenset({"sqlite", "mysql", "mariadb", "mssql"})  # column names differ by more than case


def plain_codec(column: sa.Column[Any], dialect: Dialect, nan: Nan, strict: bool) -> ColumnCodec:  # noqa: ARG001
    """The codec of a column: the database itself looks whether a row may be as it is."""
    return ColumnCodec(str(column.name), column.type, dialect, nan)


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What `SQLExporter` was told about tables; see there.

    Attributes:
        codec: makes the codec of a column. Its last argument: whether a row without a value for a column that must
            have one can be refused here.
        strict: asks the database for that; None: never.
        copies: rows are not written by ``Form.insert``, so that it passes over no id that is there.
    """

    schema: str | None = None
    create: bool = False
    new_columns: NewColumns = "reject"
    columns: Mapping[str, TypeEngine[Any]] = field(default_factory=dict)
    id_column: str | None = "_id"
    extra_column: str = "extra"
    max_columns: int = 500
    nan: Nan = "null"
    codec: Callable[[sa.Column[Any], Dialect, Nan, bool], ColumnCodec] = plain_codec
    strict: Callable[[Connection, sa.Table], bool] | None = None
    copies: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """How records with certain fields become rows.

    Attributes:
        insert: the statement, in the driver's own parameter style.
        update: for databases without an upsert: tried before ``insert``; parameters p0, p1, … in the row's order.
        known: asks which of some ids are there (one parameter), or None where a resend makes no second row.
        bulk: SQLite only: gives number of rows and text of the same statement for many rows at once, made when first
            asked for. It takes a third less time than as many single ones.
        names: parameter names for drivers that take mappings, or None.
        parts: place among the fields, and codec, of each column.
        with_id: the record id is the first parameter.
        id_at: place in the row of the column that identifies it, or None.
        extra: codec of the column that takes the unknown fields, as the last parameter.
        unknown: places and names of the fields without a column.
        keys: places (in ``parts``) of the upsert columns.
        missing: an upsert column that the fields lack, or None.
        columns: names of the columns in the row's order.
        on: names of the upsert columns.
        guard: name of the id column, if a row whose id is there is to be passed over.
        lacking: columns that must have a value, and that the fields lack.
        check: looks at all values of some rows at once.
        direct: no column makes its own values always, which PostgreSQL's COPY would overwrite and INSERT refuses.
    """

    insert: str
    update: sa.Update | None
    known: sa.Select[Any] | None
    bulk: Callable[[], tuple[int, str]] | None
    names: tuple[str, ...] | None
    parts: tuple[tuple[int, ColumnCodec], ...]
    check: RowCheck
    with_id: bool
    id_at: int | None
    extra: ColumnCodec | None
    unknown: tuple[tuple[int, str], ...]
    keys: tuple[int, ...]
    missing: str | None
    columns: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    guard: str | None = None
    lacking: tuple[str, ...] = ()
    direct: bool = True


class KnownTable:
    """One table, reflected.

    Args:
        table: as reflected.
        dialect: of the engine.
        options: what the exporter was told.
        strict: whether a row that lacks a value can be refused before the database is asked.
    """

    def __init__(self, table: sa.Table, dialect: Dialect, options: TableOptions, *, strict: bool = False) -> None:
        self.name = str(table.name)
        names = [str(column.name) for column in table.columns]
        self.columns = {name: options.codec(table.columns[name], dialect, options.nan, strict) for name in names}
        self.required = frozenset(str(each.name) for each in table.columns if strict and _required(each))
        self._always = {str(each.name) for each in table.columns if each.identity is not None and each.identity.always}
        self._dialect = dialect
        self._options = options
        self._types = {str(column.name): column.type for column in table.columns}
        self._folded = {name.casefold(): name for name in self.columns} if dialect.name in _CASELESS else {}
        self._forms: dict[Any, Form] = {}
        self.id_column = None if options.id_column is None else self.find(options.id_column)
        self.id_unique = self.id_column is not None and self.id_column in _unique(table)

    def find(self, key: str) -> str | None:
        """The name of the column for a field, or None. Case counts only where it does in the database."""
        return key if key in self.columns else self._folded.get(key.casefold())

    def tuple_keys(self, length: int) -> tuple[str, ...] | None:
        """Field names of a tuple: all columns, or all but the one of the record id. None: it has another length."""
        names = tuple(self.columns)
        if length == len(names):
            return names
        names = tuple(name for name in names if name != self.id_column)
        return names if length == len(names) else None

    def form(self, keys: tuple[str, ...], upsert: tuple[str, ...], *, pack: bool) -> Form:
        """The form for some fields.

        Args:
            keys: field names.
            upsert: columns whose row is updated where there is one.
            pack: put the fields without a column into the extra column.
        """
        mark = (keys, upsert, pack)
        found = self._forms.get(mark)
        if found is None:
            if len(self._forms) >= _FORMS_KEPT:
                self._forms.clear()
            found = self._forms[mark] = self._new_form(keys, upsert, pack=pack)
        return found

    def _new_form(self, keys: tuple[str, ...], upsert: tuple[str, ...], *, pack: bool) -> Form:
        extra = self.find(self._options.extra_column) if pack else None
        taken: dict[str, int] = {}  # column -> place of its field
        unknown: list[tuple[int, str]] = []
        for place, key in enumerate(keys):
            name = self.find(key)
            if name is None or name in taken or name == extra:
                unknown.append((place, key))
            else:
                taken[name] = place
        packed = extra if unknown else None
        with_id = self.id_column is not None and self.id_column not in taken
        names = ([str(self.id_column)] if with_id else []) + list(taken) + ([] if packed is None else [packed])
        on = [self.find(each) or each for each in upsert]
        missing = next((each for each in on if each not in taken), None)
        insert: str
        style: tuple[str, ...] | None
        update: sa.Update | None = None
        bulk: Callable[[], tuple[int, str]] | None = None
        if missing is not None or not names:
            insert, style = "", None
        else:
            statement, update = self._upsert(names, on) if upsert else (self._insert(names), None)
            insert, style = self._compile(statement, len(names))
            if self._dialect.name == "sqlite" and len(names) <= _PARAMETERS // 2:
                bulk = functools.cache(functools.partial(self._bulk, statement, len(names)))
        kinds = {place: self.columns[name].plain_kind() for name, place in taken.items()}
        passes_over = self._guarded and not self._options.copies
        return Form(
            insert=insert,
            update=update,
            known=None if upsert or self.id_column is None or passes_over else self._known(),
            bulk=bulk,
            names=style,
            parts=tuple((place, self.columns[name]) for name, place in taken.items()),
            check=RowCheck([kinds.get(place) for place in range(len(keys))]),
            with_id=with_id,
            id_at=names.index(self.id_column) if self.id_column in names else None,
            extra=None if packed is None else self.columns[packed],
            unknown=tuple(unknown),
            keys=tuple(list(taken).index(each) for each in on) if missing is None else (),
            missing=missing,
            columns=tuple(names),
            on=tuple(on),
            guard=self.id_column if self._guarded and not upsert and self.id_column in names else None,
            lacking=tuple(sorted(self.required.difference(names))),
            direct=self._always.isdisjoint(names),
        )

    @property
    def _guarded(self) -> bool:
        """Whether the insert itself passes over an id that is there.

        Only a conflict on the id may be passed over: a row that breaks another constraint is refused, not forgotten,
        so MySQL's INSERT IGNORE and the ON DUPLICATE KEY that looks at every key will not do.
        """
        return self.id_unique and self._dialect.name in {"sqlite", "postgresql"}

    def _stand_in(self, names: Sequence[str], *, typed: bool = True) -> sa.Table:
        """The table with columns keyed c0, c1, ….

        So parameter names never hold a field name, and no default of the database or RETURNING comes in.
        """
        types = [self._types[name] if typed else sa.types.NULLTYPE for name in names]
        columns = [sa.Column(name, types[place], key=f"c{place}") for place, name in enumerate(names)]
        return sa.Table(self.name, sa.MetaData(), *columns, schema=self._options.schema)

    def _insert(self, names: Sequence[str]) -> Any:
        table = self._stand_in(names)
        if not self._guarded:
            return sa.insert(table)
        new = sqlite.insert if self._dialect.name == "sqlite" else postgresql.insert
        place = list(names).index(str(self.id_column))
        return new(table).on_conflict_do_nothing(index_elements=[table.c[f"c{place}"]])

    def _upsert(self, names: Sequence[str], on: Sequence[str]) -> tuple[Any, sa.Update | None]:
        """The insert, and for databases that know no upsert the update to try before it."""
        table = self._stand_in(names)
        keys = [table.c[f"c{list(names).index(each)}"] for each in on]
        rest = [column for column in table.c if column not in set(keys)]
        dialect = self._dialect.name
        if dialect in {"sqlite", "postgresql"}:
            start: Any = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
            if not rest:
                return start.on_conflict_do_nothing(index_elements=keys), None
            changes = {column: start.excluded[column.key] for column in rest}
            return start.on_conflict_do_update(index_elements=keys, set_=changes), None
        if dialect in {"mysql", "mariadb"}:
            begun = mysql.insert(table)
            # VALUES(x), not the alias of MySQL 8: MariaDB has no other. A bare column, since SQLAlchemy's own
            # ``inserted`` doubles a % in the name twice.
            new_ = {str(column.key): sa.func.values(sa.column(str(column.name))) for column in rest or keys}
            return begun.on_duplicate_key_update(new_), None
        bare = self._stand_in(names, typed=False)  # the values have their driver's form already
        given: dict[str, Any] = {str(column.key): sa.bindparam(f"p{place}") for place, column in enumerate(bare.c)}
        where = [bare.c[str(column.key)] == given[str(column.key)] for column in keys]
        changed = {bare.c[str(column.key)]: given[str(column.key)] for column in rest or keys}
        return sa.insert(table), sa.update(bare).where(*where).values(changed)

    def _bulk(self, statement: Any, count: int) -> tuple[int, str]:
        rows = min(_BULK_ROWS, _PARAMETERS // count)
        many: list[dict[str, Any]] = [
            {f"c{n}": sa.bindparam(f"r{row}_{n}") for n in range(count)} for row in range(rows)
        ]
        compiled = statement.values(many).compile(dialect=self._dialect)
        wanted = [f"r{row}_{n}" for row in range(rows) for n in range(count)]
        if list(compiled.positiontup) != wanted:
            raise AssertionError(f"parameters in another order: {compiled.positiontup}")
        return rows, compiled.string

    def _compile(self, statement: Any, count: int) -> tuple[str, tuple[str, ...] | None]:
        """The text for the driver, and parameter names if it takes mappings. The order is that of the columns."""
        names = tuple(f"c{place}" for place in range(count))
        compiled = statement.compile(dialect=self._dialect, column_keys=list(names))
        if not compiled.positional:
            return compiled.string, names
        if tuple(compiled.positiontup) != names:
            raise AssertionError(f"parameters in another order: {compiled.positiontup}")
        return compiled.string, None

    def _known(self) -> sa.Select[Any]:
        table = self._stand_in([str(self.id_column)])
        return sa.select(table.c.c0).where(table.c.c0.in_(sa.bindparam("ids", expanding=True)))


def _required(column: sa.Column[Any]) -> bool:
    """Whether a row must bring a value for it."""
    given = column.server_default is not None or column.identity is not None or column.computed is not None
    return not column.nullable and not given and column.autoincrement is not True


def _unique(table: sa.Table) -> set[str]:
    """Columns that are a key by themselves."""
    sets: list[list[str]] = [[str(column.name) for column in table.primary_key.columns]]
    sets += [[str(c.name) for c in each.columns] for each in table.constraints if isinstance(each, sa.UniqueConstraint)]
    for index in table.indexes:
        if index.unique and not any(str(option).endswith("_where") for option in index.dialect_kwargs):
            sets.append([str(column.name) for column in index.columns])
    return {names[0] for names in sets if len(names) == 1}
