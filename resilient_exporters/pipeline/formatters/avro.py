"""Avro."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.exporters.lines import json_line
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.formatters.base import BaseWholeFormatter
from resilient_exporters.pipeline.option import Option

__all__ = ["AvroExportFormatter"]

_INVALID: Final = re.compile(r"[^A-Za-z0-9_]")
_LONG: Final = 1 << 63
_DAY: Final = dt.date(1970, 1, 1).toordinal()
_NAIVE: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - local-timestamp counts from there, without a zone
_AWARE: Final = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_DATE: Final = {"type": "int", "logicalType": "date"}
_TIMES: Final[dict[str, Any]] = {
    "aware": {"type": "long", "logicalType": "timestamp-micros"},
    "naive": {"type": "long", "logicalType": "local-timestamp-micros"},
}


class AvroExportFormatter(BaseWholeFormatter):
    """Avro object container files: a field for each key.

    Without a schema, one is made of the records: each field may be null, and has the types that its values have (long,
    double, boolean, string, bytes, date, timestamp-micros, local-timestamp-micros); a nested or other value is its JSON
    text. In the name of a field stands ``_`` for what Avro does not allow there; its ``doc`` is the key.

    Raises:
        ConfigurationError: the schema is none.
        MissingModuleError: the extra ``avro`` is not installed.
    """

    file_extension = "avro"
    supported_options = {
        "schema": Option(type=dict, default=None, help="Avro schema of the records; default: made of the records."),
        "codec": Option(
            type=str, default="deflate", choices=("null", "deflate", "bzip2", "xz"),
            help="Compression inside of the file; the writer's compression is best none.",
        ),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            import fastavro
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, "AvroExportFormatter needs fastavro: pip install 'resilient-exporters[avro]'"
            ) from error
        self._fastavro = fastavro
        self._schema: Any = None
        given = self.read_option("schema")
        if given is not None:
            try:
                self._schema = fastavro.parse_schema(given)
            except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, KeyError, TypeError) as error:
                raise ConfigurationError(None, f"schema: no Avro schema: {type(error).__name__}: {error}") from error

    def assemble(self, source: Any, target: Any) -> None:
        """Make the file."""
        records: Iterable[Any] = self.records(source)
        schema = self._schema
        if schema is None:
            fields = _fields(records)
            schema = self._fastavro.parse_schema({
                "type": "record",
                "name": "record",
                "fields": [field.schema for field in fields.values()],
            })  # fmt: skip
            records = (
                {fields[str(key)].name: fields[str(key)].value(value) for key, value in record.items()}
                for record in self.records(source)
            )
        self._fastavro.writer(target, schema, records, codec=self.read_option("codec"))


class _Field:
    """A field that is made of the values of a key."""

    def __init__(self, key: str, name: str) -> None:
        self.key, self.name = key, name
        self.kinds: dict[str, None] = {}  # in the order in which they came

    @property
    def _texts(self) -> bool:
        """Times are texts here: Avro knows a union by the plain types in it, and all these would be long."""
        return len({"aware", "naive", "long"} & set(self.kinds)) > 1

    @property
    def schema(self) -> dict[str, Any]:
        """As it stands in the schema."""
        kinds = dict.fromkeys("string" if kind in _TIMES and self._texts else kind for kind in self.kinds)
        types = [_TIMES.get(kind, _DATE if kind == "int" else kind) for kind in kinds]
        return {"name": self.name, "type": ["null", *types], "default": None, "doc": self.key}

    def value(self, value: Any) -> Any:
        """A value as fastavro takes it for a union: with its type."""
        kind = _kind(value)
        if kind in _TIMES:
            if self._texts:
                return ("string", value.isoformat())
            return ("long", (value - (_AWARE if kind == "aware" else _NAIVE)) // _MICROSECOND)
        if kind is None:
            return None
        if kind == "int":
            return ("int", value.toordinal() - _DAY)
        return (kind, _text(value) if kind == "string" else value)


def _fields(records: Iterable[Mapping[str, Any]]) -> dict[str, _Field]:
    found: dict[str, _Field] = {}
    taken: set[str] = set()
    for record in records:
        for key, value in record.items():
            field = found.get(str(key))
            if field is None:
                name = _INVALID.sub("_", str(key)) or "_"
                name = f"_{name}" if name[0].isdigit() else name
                while name in taken:
                    name += "_"
                taken.add(name)
                field = found[str(key)] = _Field(str(key), name)
            kind = _kind(value)
            if kind is not None:
                field.kinds[kind] = None
    return found


def _kind(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "long" if -_LONG <= value < _LONG else "string"
    if isinstance(value, float):
        return "double"
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, dt.datetime):
        return "naive" if value.tzinfo is None else "aware"
    return "int" if isinstance(value, dt.date) else "string"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    text = json_line(value).decode().removesuffix("\n")
    return str(json.loads(text)) if text.startswith('"') else text
