"""Parquet."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, Final

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.exporters.lines import json_line
from resilient_exporters.pipeline.formatters.base import BaseWholeFormatter
from resilient_exporters.pipeline.option import Option

__all__ = ["ParquetExportFormatter"]

_ROWS: Final = 10_000


class ParquetExportFormatter(BaseWholeFormatter):
    """Parquet: a column for each key, of the type that its values have; missing ones and None are null.

    A key whose values have types that do not go together is a column of texts (JSON). The file is made when the buffer
    is full, in two passes: one for the types, one for the values.

    Raises:
        MissingModuleError: the extra ``parquet`` is not installed.
    """

    file_extension = "parquet"
    supported_options = {
        "parquet_compression": Option(
            type=str, default="snappy", choices=("none", "snappy", "gzip", "zstd", "lz4", "brotli"),
            help="Compression inside of the file; the writer's compression is best none.",
        ),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, "ParquetExportFormatter needs pyarrow: pip install 'resilient-exporters[parquet]'"
            ) from error
        self._pa, self._parquet = pa, parquet
        self._compression = self.read_option("parquet_compression")

    def assemble(self, source: Any, target: Any) -> None:
        """Make the file."""
        pa = self._pa
        kinds: dict[str, Any] = {}
        for rows in self._batches(source):
            for name in dict.fromkeys(key for row in rows for key in row):
                kind = self._kind([row.get(name) for row in rows])
                kinds[name] = kind if name not in kinds else self._both(kinds[name], kind)
        # A column of nothing but null is one of texts: many readers know no other.
        fields = [(name, pa.string() if kind == pa.null() else kind) for name, kind in kinds.items()]
        schema = pa.schema(fields)
        with self._parquet.ParquetWriter(target, schema, compression=self._compression) as writer:
            for rows in self._batches(source):
                arrays = [self._array([row.get(name) for row in rows], kind) for name, kind in fields]
                # Without a column there is nothing that could count rows: a file of empty records is empty.
                writer.write_batch(pa.record_batch(arrays, schema=schema))

    def _batches(self, source: Any) -> Iterator[list[dict[str, Any]]]:
        records = ({str(key): value for key, value in record.items()} for record in self.records(source))
        while rows := list(itertools.islice(records, _ROWS)):
            yield rows

    def _kind(self, values: list[Any]) -> Any:
        pa = self._pa
        try:
            kind = pa.array(values).type
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return pa.string()
        return pa.string() if "struct<>" in str(kind) else kind  # Parquet has no struct without fields

    def _both(self, one: Any, other: Any) -> Any:
        pa = self._pa
        if one == other:
            return one
        try:
            pair = [pa.schema([("value", kind)]) for kind in (one, other)]
            return pa.unify_schemas(pair, promote_options="permissive").field("value").type
        except (pa.ArrowException, ValueError, TypeError):
            return pa.string()

    def _array(self, values: list[Any], kind: Any) -> Any:
        if kind == self._pa.string():
            values = [None if value is None else _text(value) for value in values]
        return self._pa.array(values, type=kind)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    text = json_line(value).decode().removesuffix("\n")
    return str(json.loads(text)) if text.startswith('"') else text
