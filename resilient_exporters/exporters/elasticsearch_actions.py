"""From records to the lines of a bulk request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote, urlencode

from resilient_exporters.delivery.outcome import Batch, Record
from resilient_exporters.errors import DataTypeError, InvalidConfigError
from resilient_exporters.exporters.index_pattern import IndexPattern
from resilient_exporters.exporters.lines import json_line

__all__ = ["Action", "Actions", "Request"]


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done with one record.

    Attributes:
        index: name of the index, alias or data stream.
        id: of the document; None: the server makes one.
        own: whether the id is our record's, so that a document which has it is this one.
        op_type: "create" or "index".
        routing: or None.
        pipeline: or None: the exporter's.
        named: whether the record itself says index, pipeline or op_type.
        document: without ``_id``.
    """

    index: str
    id: str | None
    own: bool
    op_type: str
    routing: str | None
    pipeline: str | None
    named: bool
    document: Mapping[Any, Any]


class Request(NamedTuple):
    """A bulk request.

    Attributes:
        body: its lines.
        places: places in the batch of the records in it.
        refused: place and reason of those that are not.
    """

    body: bytes
    places: list[int]
    refused: dict[int, str]


@dataclass(frozen=True, slots=True)
class Actions:
    """How records become actions.

    Attributes:
        index: for records that name none.
        op_type: for records that name none.
        id: "record", "server", or a function of the record's data.
        replace: whether a document with the user's id is replaced.
        pipeline: for records that name none.
        refresh: as the API has it.
    """

    index: IndexPattern | None
    op_type: str
    id: Literal["record", "server"] | Callable[[Any], Any]
    replace: bool
    pipeline: str | None
    refresh: str | None

    @property
    def target(self) -> str:
        """Path and query of the request.

        An index that is one for all is in the path: that saves its name in every line, and some servers allow no other.
        """
        fixed = None if self.index is None else self.index.fixed
        query = {"filter_path": _KEPT, "pipeline": self.pipeline, "refresh": self.refresh}
        text = urlencode({name: value for name, value in query.items() if value is not None}, safe=",*")
        return f"{'' if fixed is None else '/' + quote(fixed, safe='')}/_bulk?{text}"

    def request(self, batch: Batch) -> Request:
        """The request for a batch."""
        parts: list[bytes] = []
        places: list[int] = []
        refused: dict[int, str] = {}
        common = self.index is not None and self.index.fixed is not None and self.id == "record"
        head = f'{{"{self.op_type}":{{"_id":"'.encode()
        for place, record in enumerate(batch):
            data = record.data
            if common and not record.options and type(data) is dict and "_id" not in data:
                parts += (head, record.id.encode(), b'"}}\n', json_line(data))
            else:
                try:
                    action = self.action(record)
                except DataTypeError as error:
                    refused[place] = str(error)
                    continue
                parts += (self._line(action), json_line(action.document))
            places.append(place)
        return Request(b"".join(parts), places, refused)

    def action(self, record: Record) -> Action:
        """What is to be done with a record.

        Raises:
            DataTypeError: it cannot be a document.
        """
        data, options = record.data, record.options
        if not isinstance(data, Mapping):
            raise DataTypeError(None, f"a document is a mapping, not a {type(data).__name__}")
        given = options.get("id")
        if "_id" in data:
            data = dict(data)
            inner = data.pop("_id")
            given = inner if given is None else given
        if given is None and callable(self.id):
            given = self._called(self.id, data)
        name = _id(given) if given is not None else (None if self.id == "server" else record.id)
        op_type = options.get("op_type") or ("index" if self.replace and given is not None else self.op_type)
        if op_type not in {"create", "index"}:
            raise DataTypeError(None, f'op_type={op_type!r}: must be "create" or "index"')
        index = options.get("index")
        return Action(
            index=self._index(index, data),
            id=name,
            own=given is None and name is not None,
            op_type=op_type,
            routing=_said(options, "routing"),
            pipeline=_said(options, "pipeline"),
            named=not options.keys().isdisjoint(_NAMED),
            document=data,
        )

    def _index(self, given: Any, data: Mapping[Any, Any]) -> str:
        if given is None:
            if self.index is None:
                raise DataTypeError(None, "no index: give default_index, or index with the record")
            return self.index.fixed or self.index.name(data)
        try:
            return (_pattern if isinstance(given, str) else IndexPattern)(given, "index").name(data)
        except InvalidConfigError as error:
            raise DataTypeError(None, str(error)) from None

    @staticmethod
    def _called(make: Callable[[Any], Any], data: Mapping[Any, Any]) -> Any:
        try:
            return make(data)
        except Exception as error:
            raise DataTypeError(None, f"the function for id raised {type(error).__name__}: {error}") from error

    def _line(self, action: Action) -> bytes:
        fixed = None if self.index is None else self.index.fixed
        said: dict[str, str] = {}
        if action.index != fixed:
            said["_index"] = action.index
        if action.id is not None:
            said["_id"] = action.id
        if action.routing is not None:
            said["routing"] = action.routing
        if action.pipeline is not None:
            said["pipeline"] = action.pipeline
        return json_line({action.op_type: said})


_KEPT: Final = "errors,items.*._index,items.*._id,items.*.status,items.*.result,items.*.error"
_NAMED: Final = frozenset({"index", "op_type", "pipeline"})


_pattern: Final = lru_cache(maxsize=256)(IndexPattern)


def _id(given: Any) -> str:
    if isinstance(given, (bool, float, bytes, Mapping, list, tuple, set, frozenset)):
        raise DataTypeError(None, f"_id is a {type(given).__name__}, and not a text or an int")
    text = str(given)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise DataTypeError(None, f"_id {text!r} has half a surrogate pair in it") from None
    if not 0 < size <= 512:
        raise DataTypeError(None, f"_id has {size} bytes: Elasticsearch takes 1 to 512")
    return text


def _said(options: Mapping[str, Any], name: str) -> str | None:
    value = options.get(name)
    return None if value is None or value == "" else str(value)
