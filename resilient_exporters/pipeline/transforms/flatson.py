"""Nested records made flat, as a JSON schema says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from resilient_exporters.exporters.lines import json_line
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.nested import MISSING, nested
from resilient_exporters.pipeline.option import Option, named
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.transforms.base import BaseRecordTransform

__all__ = ["FlatsonTransform"]

_SERIALIZE: Final = "flatson_serialize"
_DEEP: Final = 50


class FlatsonTransform(BaseRecordTransform):
    """Makes nested records flat by a JSON schema: ``{"address": {"city": …}}`` becomes ``{"address.city": …}``.

    The new record has the fields of the schema only, sorted by name; one that a record lacks is None. A list becomes
    its JSON text, or what ``flatson_serialize`` beside its type says: ``{"method": "join_values"}`` (texts with a comma
    between; ``separator`` for another), ``extract_first`` (the first value) or ``extract_key_values``
    (``key:value,…`` of objects with the keys ``key_name`` and ``value_name``).

    Raises:
        ConfigurationError: the schema describes no object.
    """

    supported_options = {
        "flatson_schema": Option(type=dict, help="JSON schema of the records."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        schema = self.read_option("flatson_schema")
        if not isinstance(schema.get("properties"), Mapping) or schema.get("type", "object") != "object":
            raise ConfigurationError(
                None, 'flatson_schema: give the schema of an object: {"type": "object", "properties": {…}}'
            )
        self._fields = sorted(_fields(schema, ()), key=lambda field: field[0])
        self.fieldnames = [name for name, _, _ in self._fields]

    def transform(self, item: BaseRecord) -> Iterable[dict[str, Any]]:
        """The flat record."""
        flat: dict[str, Any] = {}
        for name, path, write in self._fields:
            value = nested(item, path)
            flat[name] = None if value is MISSING or value is None else write(value)
        return (flat,)


_Write = Callable[[Any], Any]


def _fields(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], _Write]]:
    if len(path) > _DEEP:
        raise ConfigurationError(None, f"flatson_schema: nested more than {_DEEP} times")
    for key, value in schema["properties"].items():
        if not isinstance(value, Mapping):
            raise ConfigurationError(None, f"flatson_schema: {'.'.join((*path, key))} is {value!r:.40}: give a schema")
        if isinstance(value.get("properties"), Mapping):
            yield from _fields(value, (*path, key))
        else:
            yield ".".join((*path, key)), (*path, key), _writer(value, ".".join((*path, key)))


def _json(value: Any) -> Any:
    return json_line(value).decode().removesuffix("\n") if isinstance(value, (list, tuple, Mapping)) else value


def _text(value: Any) -> str:
    return str(_json(value))


def _writer(schema: Mapping[str, Any], name: str) -> _Write:
    given = schema.get(_SERIALIZE)
    if given is None:
        return _json
    method = given.get("method") if isinstance(given, Mapping) else given
    separator = given.get("separator", ",") if isinstance(given, Mapping) else ","
    if method in ("join_values", "concat_values"):
        return lambda value: separator.join(map(_text, value)) if isinstance(value, (list, tuple)) else value
    if method == "extract_first":
        return lambda value: (_json(value[0]) if value else None) if isinstance(value, (list, tuple)) else value
    if method == "extract_key_values":
        key, content = given.get("key_name", "name"), given.get("value_name", "value")
        return lambda value: separator.join(f"{_text(one[key])}:{_text(one[content])}" for one in value)
    known = ("join_values", "extract_first", "extract_key_values")
    raise ConfigurationError(
        None, f"flatson_schema: {name}: {_SERIALIZE} {named(method, known)} is none of {', '.join(known)}"
    )
