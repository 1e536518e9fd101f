"""A batch cut into groups of records that one statement can write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from resilient_exporters.delivery.outcome import Batch, Record

__all__ = ["Group", "groups_of", "upsert_columns"]

Address = tuple[str, tuple[str, ...]]
"""Table and upsert columns of a record."""


class Group:
    """Records for one table with the same fields in the same order.

    Attributes:
        table: table name.
        upsert: columns whose row is updated where there is one, or ().
        keys: field names, or None for tuples (all columns in table order).
        members: places of the records in the batch.
        ids: their record ids.
        rows: the values, record by record.
        width: number of fields.
    """

    __slots__ = ("_columns", "ids", "keys", "members", "rows", "table", "upsert", "width")

    def __init__(
        self,
        address: Address,
        keys: tuple[str, ...] | None,
        members: Sequence[int],
        ids: Sequence[str],
        values: Sequence[Sequence[Any]],
    ) -> None:
        self.table, self.upsert = address
        self.keys = keys
        self.members = members
        self.ids = ids
        self.width = len(values[0])
        self.rows = values
        self._columns: list[Sequence[Any]] | None = None

    @property
    def columns(self) -> list[Sequence[Any]]:
        """The values, field by field."""
        if self._columns is None:
            self._columns = list(zip(*self.rows, strict=True)) or [()] * self.width
        return self._columns

    def keep(self, wanted: Sequence[bool]) -> None:
        """Leave out the records whose place in ``wanted`` is False."""
        places = [place for place, good in enumerate(wanted) if good]
        self.members = [self.members[place] for place in places]
        self.ids = [self.ids[place] for place in places]
        self.rows = [self.rows[place] for place in places]
        self._columns = None


_STR: Final = frozenset({str})


def groups_of(batch: Batch, address_of: Callable[[Record], Address], value_column: str) -> list[Group]:
    """Cut a batch into groups.

    Records of one address and shape are put together wherever they stand; those with upsert columns only where they
    follow each other, since the later of two records for one row must win.

    Args:
        batch: the records.
        address_of: gives table and upsert columns of a record.
        value_column: field name of a record that is neither a mapping nor a tuple.
    """
    records = list(batch)
    uniform = _uniform(records)
    if uniform is not None:
        keys, rows = uniform
        ids = [f"{record.run}-{record.offset}" for record in records]  # record.id without a call for each
        return [Group(address_of(records[0]), keys, range(len(records)), ids, rows)]
    found: list[tuple[Address, tuple[str, ...] | None, list[int], list[Sequence[Any]]]] = []
    open_groups: dict[Any, int] = {}
    for place, record in enumerate(records):
        address = address_of(record)
        keys_, values = _shape(record.data, value_column)
        mark = (address, keys_, len(values))
        at = open_groups.get(mark)
        if at is None or (address[1] and at != len(found) - 1):
            open_groups[mark] = at = len(found)
            found.append((address, keys_, [], []))
        found[at][2].append(place)
        found[at][3].append(values)
    return [
        Group(address, keys_, places, [records[p].id for p in places], rows) for address, keys_, places, rows in found
    ]


def _uniform(records: Sequence[Record]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]] | None:
    """Keys and values if all are dicts with the same text keys and none has options, which is nearly every batch."""
    datas = [record.data for record in records]
    given = [record.options for record in records]
    if set(map(type, datas)) != {dict} or any(given):
        return None
    keys = tuple(datas[0])
    if not keys or not _STR.issuperset(map(type, keys)) or set(map(len, datas)) != {len(keys)}:
        return None
    try:
        if len(keys) == 1:
            return keys, [(data[keys[0]],) for data in datas]
        return keys, list(map(itemgetter(*keys), datas))
    except KeyError:
        return None


def _shape(data: Any, value_column: str) -> tuple[tuple[str, ...] | None, Sequence[Any]]:
    if isinstance(data, Mapping):
        return tuple(key if isinstance(key, str) else str(key) for key in data), tuple(data.values())
    if isinstance(data, tuple):
        return None, data
    return (value_column,), (data,)


def upsert_columns(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The option ``upsert_on`` as a tuple: a name, or a tuple or list of names, or None."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)
