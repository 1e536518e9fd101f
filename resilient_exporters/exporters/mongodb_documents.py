"""Records made into BSON documents, one by one, so that one that cannot be is refused alone."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import bson
from bson.codec_options import CodecOptions
from bson.decimal128 import Decimal128
from bson.errors import InvalidDocument
from bson.raw_bson import RawBSONDocument

from resilient_exporters.delivery.outcome import Record
from resilient_exporters.errors import DataTypeError

__all__ = ["HARMLESS", "UNENCODABLE", "Document", "DocumentMaker", "fit"]

LARGEST: Final = 16 * 1024 * 1024
"""Bytes of a document at most (MongoDB manual, "MongoDB Limits and Thresholds")."""

HARMLESS: Final = LARGEST // 16
"""Bytes in the queue from which no document above `LARGEST` can come: the worst is a long list of zeros, one byte each
there and 13 in BSON, where a place has its number as text."""

UNENCODABLE: Final = (InvalidDocument, OverflowError, ValueError, TypeError, RecursionError)
"""What bson raises for a value that cannot be a part of a document."""

_RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(document_class=RawBSONDocument)


class Document(NamedTuple):
    """A record as it goes to the server.

    Attributes:
        id: its ``_id``.
        own: the id is ours: only this record can have it.
        body: all of it, ``_id`` first; bytes once they had to be made here.
    """

    id: Any
    own: bool
    body: Mapping[str, Any]

    def encoded(self, options: CodecOptions[Any]) -> Document:
        """The same in bytes, with values that BSON has not as what comes nearest.

        Raises:
            DataTypeError: it cannot be a document; the text says why.
        """
        if isinstance(self.body, RawBSONDocument):
            return self
        body = self.body
        try:
            raw = bson.encode(body, codec_options=options)
        except UNENCODABLE:
            raw, body = _encode_plain(body, options)
        if len(raw) > LARGEST:
            raise DataTypeError(None, f"{len(raw)} bytes of BSON: a document has at most {LARGEST} (16 MiB)")
        return Document(body["_id"], self.own, RawBSONDocument(raw, _RAW))

    def raw(self, options: CodecOptions[Any]) -> bytes:
        """The bytes. Raises as `encoded`."""
        body: Any = self.encoded(options).body
        return bytes(body.raw)


def fit(documents: Sequence[Document], options: CodecOptions[Any]) -> bool:
    """Whether none can be too large: all together are not.

    Raises:
        Exception: one of `UNENCODABLE`. It does not say which document it is.
    """
    return len(bson.encode({"": [document.body for document in documents]}, codec_options=options)) <= LARGEST


class DocumentMaker:
    """Makes documents.

    Args:
        make_id: "record", "objectid", "server", or a function of the record.
    """

    def __init__(self, make_id: str | Callable[[Record], Any]) -> None:
        self._make_id = make_id

    def make_all(self, records: Sequence[Record]) -> list[Document] | None:
        """The documents of records that are all dicts under our id, which is nearly every batch; else None.

        In one go: half the time of `make` for each.
        """
        if self._make_id != "record" or any(
            type(record.data) is not dict or "_id" in record.data for record in records
        ):
            return None
        return [
            _new(Document, (identity := f"{record.run}-{record.offset}", True, {"_id": identity, **record.data}))
            for record in records
        ]

    def make(self, record: Record) -> Document:
        """The document of a record. The record is not changed.

        Raises:
            DataTypeError: it is no mapping, or gets no id.
        """
        data = record.data
        if type(data) is not dict and not isinstance(data, Mapping):
            raise DataTypeError(None, f"a {type(data).__name__} is no document: send a mapping")
        if "_id" in data:
            return Document(data["_id"], False, {"_id": data["_id"], **data})
        if self._make_id == "record":
            identity, own = f"{record.run}-{record.offset}", True
        else:
            identity, own = self._identity(record)
        return Document(identity, own, {"_id": identity, **data})

    def _identity(self, record: Record) -> tuple[Any, bool]:
        make = self._make_id
        if make == "objectid":
            return bson.ObjectId(hashlib.blake2b(record.id.encode(), digest_size=12).digest()), True
        if make == "server":
            return bson.ObjectId(), True
        assert callable(make)  # noqa: S101 - the exporter's constructor has looked
        try:
            return make(record), False
        except Exception as error:
            raise DataTypeError(None, f"id= raised {type(error).__name__}: {error}") from error


_new: Final = tuple.__new__
"""A named tuple without the call of its own ``__new__``, which is the dearest part of making one."""


def _encode_plain(document: Mapping[str, Any], options: CodecOptions[Any]) -> tuple[bytes, Mapping[str, Any]]:
    try:
        changed: dict[str, Any] = _plain(document)
        return bson.encode(changed, codec_options=options), changed
    except RecursionError as error:
        raise DataTypeError(None, "nested too deeply for BSON") from error
    except UNENCODABLE as error:
        text = str(error).partition("| document:")[0]
        if isinstance(error, OverflowError):
            text = "a whole number beyond 64 bits; send it as text or Decimal"
        elif isinstance(error, UnicodeEncodeError):
            text = f"a lone surrogate, which UTF-8 does not have: {text}"
        raise DataTypeError(None, " ".join(text.split())[:300]) from error


def _plain(value: Any) -> Any:
    """A value in types that BSON has; what it has already stays as it is."""
    if isinstance(value, Mapping):
        made = {key if isinstance(key, str) else _key(key): _plain(each) for key, each in value.items()}
        if len(made) != len(value):
            raise ValueError("two keys of a mapping have the same text")
        return made
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if hasattr(value, "to_pydatetime") or hasattr(value, "to_pytimedelta"):  # pandas
        if str(value) == "NaT":
            return None
        return _plain(value.to_pydatetime(warn=False) if hasattr(value, "to_pydatetime") else value.to_pytimedelta())
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy
        if value.dtype.kind in "mM":  # nanoseconds would come out as int
            value = value.astype(f"{value.dtype.kind}8[us]")
        return _plain(value.tolist())
    for kind, change in _CHANGES:
        if isinstance(value, kind):
            return change(value)
    return None if type(value).__name__ == "NAType" else value


def _key(key: Any) -> str:
    if isinstance(key, bool | int | float | decimal.Decimal | dt.date | dt.time | uuid.UUID | bson.ObjectId):
        return str(key)
    if key is None:
        return "null"
    raise TypeError(f"a key of type {type(key).__name__}: give it as text")


def _decimal(value: decimal.Decimal) -> Decimal128:
    with decimal.localcontext(decimal.Context(prec=34, Emin=-6143, Emax=6144, traps=[])) as context:
        exact = context.create_decimal(value)
        if context.flags[decimal.Inexact] or context.flags[decimal.Overflow]:
            raise ValueError(f"{value} has more than the 34 digits of a Decimal128; send it as text")
        return Decimal128(exact)


def _midnight(value: dt.date) -> dt.datetime:
    return dt.datetime(value.year, value.month, value.day, tzinfo=dt.timezone.utc)


_CHANGES: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...]] = (
    (decimal.Decimal, _decimal),
    (dt.datetime, lambda value: value),  # a datetime is a date
    (dt.date, _midnight),
    (dt.time, dt.time.isoformat),
    (dt.timedelta, dt.timedelta.total_seconds),
    ((bytearray, memoryview), bytes),
)
