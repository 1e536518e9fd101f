"""What tasks hand on: rows, DataFrames of pandas or polars, and CSV made of any of them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.tasks.errors import InputError, TaskError
from resilient_exporters.tasks.rows import Rows, chunks

__all__ = ["RESULTS", "columns_of", "frame_kind", "records", "result", "result_kind", "write_csv"]

RESULTS: Final = ("auto", "rows", "pandas", "polars")
_CSV_PARAMS: Final = {"index", "columns", "header", "sep", "na_rep", "lineterminator", "quoting", "encoding"}


def frame_kind(value: object) -> str | None:
    """Whose DataFrame it is, "pandas" or "polars"; None if it is none. Neither is imported for this."""
    for each in type(value).__mro__:
        package = each.__module__.partition(".")[0]
        if each.__name__ == "DataFrame" and package in ("pandas", "polars"):
            return package
    return None


def result_kind(wanted: Any) -> str:
    """What a query is to give.

    Raises:
        TaskError: there is no such form.
        MissingModuleError: the package is not installed.
    """
    if wanted not in RESULTS:
        raise TaskError(f"results={wanted!r} is not possible; give one of {', '.join(RESULTS)}")
    if wanted == "auto":
        return "pandas" if _installed("pandas") else "rows"
    if wanted != "rows" and not _installed(wanted):
        extra = f"pip install 'resilient-exporters[{wanted}]'"
        raise MissingModuleError(None, f"results={wanted!r} needs {wanted}: {extra}")
    return str(wanted)


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # an import hook that hides it
        return False


def result(kind: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """Rows in the form that was asked for."""
    if kind == "pandas":
        import pandas as pd

        return pd.DataFrame.from_records([tuple(row) for row in rows], columns=list(columns), coerce_float=True)
    if kind == "polars":
        import polars as pl

        return pl.DataFrame([tuple(row) for row in rows], schema=list(columns), orient="row", infer_schema_length=None)
    if len(set(columns)) < len(columns):
        raise TaskError(f"the columns {', '.join(columns)} have a name twice: give them names with AS")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def records(value: Any) -> Iterator[Any]:
    """The records of an input, one after the other; missing values of DataFrames are None.

    Raises:
        InputError: it has none.
    """
    kind = frame_kind(value)
    if kind == "pandas":
        names = list(value.columns)
        for row in value.itertuples(index=False, name=None):
            yield {str(name): _none(each) for name, each in zip(names, row, strict=True)}
    elif kind == "polars":
        yield from value.iter_rows(named=True)
    elif isinstance(value, (Mapping, str, bytes)):
        yield value
    elif isinstance(value, Iterable) and not isinstance(value, io.IOBase):
        yield from value
    else:
        raise InputError(
            f"an input of type {type(value).__name__} has no records; give a DataFrame, rows, a mapping, a text, bytes"
        )


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """All names, in the order in which they are met."""
    return list(dict.fromkeys(name for row in rows for name in row))


def write_csv(value: Any, file: Any, params: Mapping[str, Any]) -> int:
    """Write an input as CSV.

    Args:
        value: a DataFrame, or rows (mappings).
        file: open for bytes.
        params: of pandas' ``to_csv``; without pandas, and for rows: index (ignored), columns, header, sep, na_rep,
            lineterminator, quoting and encoding.

    Returns:
        How many rows.

    Raises:
        InputError: it is none of these.
        TaskError: there is no such parameter.
    """
    if frame_kind(value) == "pandas":
        value.to_csv(file, **params)
        return len(value)
    if unknown := sorted(set(params) - _CSV_PARAMS):
        raise TaskError(f"params has {', '.join(unknown)}, which only a pandas DataFrame takes; "
                        f"rows take {', '.join(sorted(_CSV_PARAMS))}")  # fmt: skip
    polars = frame_kind(value) == "polars"
    if not polars and (isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable)):
        raise InputError(f"an input of type {type(value).__name__} is no table; give a DataFrame or a list of mappings")
    if isinstance(value, Iterator):
        value = list(value)  # the columns are known at its end
    columns = params.get("columns") or (value.columns if polars or isinstance(value, Rows) else _named(value))
    text = io.TextIOWrapper(file, encoding=params.get("encoding") or "utf-8", newline="", write_through=True)
    writer = csv.writer(text, delimiter=params.get("sep", ","), quoting=params.get("quoting", csv.QUOTE_MINIMAL),
                        lineterminator=params.get("lineterminator") or "\n")  # fmt: skip
    empty, count = params.get("na_rep", ""), 0
    if params.get("header", True):
        writer.writerow(columns)
    for some in chunks(records(value), 1000):
        writer.writerows([_cell(row.get(name), empty) for name in columns] for row in some)
        count += len(some)
    text.detach()
    return count


def _named(value: Iterable[Any]) -> list[str]:
    for row in value:
        if not isinstance(row, Mapping):
            raise InputError(f"a row of type {type(row).__name__} has no columns; give mappings, or a DataFrame")
    return columns_of(value)


def _cell(value: Any, empty: str) -> Any:
    return empty if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _none(value: Any) -> Any:
    """None for what pandas has in the place of a missing value."""
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - not a number is the one that differs from itself
        return None
    return None if type(value).__name__ in ("NaTType", "NAType") else value
