"""A MongoDB collection as a source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.exporters.mongodb_client import ClientFactory
from resilient_exporters.exporters.mongodb_errors import judge, reason
from resilient_exporters.pipeline.asking import StopAsked, ask
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.units import parse_count

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.database import Database

__all__ = ["BaseMongoReader", "MongoReader"]

_T = TypeVar("_T")
_ORDER: Final = (("MinKey",), ("NoneType",), ("int", "float", "Int64", "Decimal128"), ("str",), ("dict", "SON"),
                 ("bytes", "Binary", "UUID"), ("ObjectId",), ("bool",), ("datetime", "DatetimeMS"), ("Timestamp",),
                 ("MaxKey",))  # fmt: skip
_CODES: Final = ((-1,), (10,), (1, 16, 18, 19), (2,), (3,), (5,), (7,), (8,), (9,), (17,), (127,))
"""Types of an ``_id`` in the order of BSON, by their names in Python and by their numbers (MongoDB manual,
"Comparison/Sort Order" and "BSON Types")."""


def _counting(value: int) -> int:
    return parse_count(value, "batch_size")


class BaseMongoReader(BaseReader):
    """What readers of MongoDB have in common: where it is."""

    supported_options = {
        "uri": Option(
            type=str, default=None, help="Connection string (mongodb://host:27017/database); or give a host."
        ),
        "host": Option(type=str, default=None, help="Host, or host:port."),
        "username": Option(type=str, default=None, help="User."),
        "password": Option(
            type=str, default=None, env_fallback="EXPORTERS_MONGODB_PASSWORD", secret=True, help="Password."
        ),
        "database": Option(type=str, default=None, help="Database; default: the one in the URI."),
        "batch_size": Option(type=int, default=1000, check=_counting, help="Records in a batch."),
        "timeout": Option(type=float, default=30.0, help="Seconds that an attempt may take."),
        "client_options": Option(type=dict, default={}, help="Further options of pymongo's MongoClient."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        option = self.read_option
        login = {name: option(name) for name in ("username", "password") if option(name) is not None}
        options = {**option("client_options"), **login}
        try:
            self._factory = ClientFactory(option("host"), 27017, option("uri"), option("timeout"), options)
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"{type(self).__name__} needs {error.name}: pip install 'resilient-exporters[mongodb]'"
            ) from error
        self._database_name: str = option("database") or self._factory.database or ""
        if not self._database_name:
            raise ConfigurationError(None, "database is missing: give it, or name it in the URI")
        self.batch_size: int = option("batch_size")
        self._client: MongoClient[Any] | None = None

    @property
    def _database(self) -> Database[Any]:
        if self._client is None:
            self._client = self._factory.make()
        return self._client[self._database_name]

    def _ask(self, question: Callable[[], _T], collection: str | None) -> _T:
        name = self._database_name if collection is None else f"{self._database_name}.{collection}"
        return ask(
            question,
            f"reading {name} at {self._factory.address}",
            passing=lambda error: judge(error) == "retry",
            reason=reason,
            stopping=self.stopping,
        )

    def close(self) -> None:
        """Close connections."""
        if self._client is not None:
            self._client.close()
            self._client = None


class MongoReader(BaseMongoReader):
    """Reads a collection in the order of ``_id``, whatever types its ids have.

    The position is the ``_id`` of the last record, so that a resume goes on exactly there. Documents that appear behind
    it while it reads are read, those before it are not. In ``filter``, MongoDB's Extended JSON stands for the types
    that JSON lacks: ``{"at": {"$gt": {"$date": "2026-01-01T00:00:00Z"}}}``.
    """

    supported_options = {
        "collection": Option(type=str, default=None, help="Collection; default: the one in the URI."),
        "filter": Option(type=dict, default={}, help="Query that documents must meet."),
        "projection": Option(type=dict, default=None, help="Which fields are wanted; _id is among them."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from bson import json_util

        self._collection: str | None = self.read_option("collection") or self._factory.collection
        if not self._collection:
            raise ConfigurationError(None, "collection is missing: give it, or name it in the URI")
        self._projection = self.read_option("projection")
        if self._projection is not None and not self._projection.get("_id", True):
            raise ConfigurationError(None, "projection: without _id the reader would not know where it stands")
        given = self.read_option("filter")
        self._filter: dict[str, Any] = json_util.loads(json_util.dumps(given)) if given else {}
        self._after: list[Any] = []

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next page."""
        try:
            documents = self._ask(self._page, self._collection)
        except StopAsked:
            return
        for document in documents:
            self._after = [document["_id"]]
            yield document
        self.finished = not documents

    def _page(self) -> list[dict[str, Any]]:
        if not self._after:
            return self._found({})
        last = self._after[0]
        # A comparison sees ids of the same type only. Those of the types behind it come with another question.
        found = self._found({"_id": _behind(last)})
        if found:
            return found
        highest = self._found({}, order=-1, most=1)
        codes = [] if not highest else _codes_between(last, highest[0]["_id"])
        return self._found({"_id": {"$type": codes}} if codes else {"_id": _behind(last)})

    def _found(self, condition: dict[str, Any], order: int = 1, most: int | None = None) -> list[dict[str, Any]]:
        assert self._collection is not None  # noqa: S101 - the constructor looked
        wanted = {"$and": [condition, self._filter]} if condition and self._filter else condition or self._filter
        cursor = self._database[self._collection].find(wanted, self._projection).sort("_id", order)
        with cursor.limit(most or self.batch_size):
            return list(cursor)

    def get_last_position(self) -> Any:
        """The last id."""
        return {"after": list(self._after)}

    def set_last_position(self, position: Any) -> None:
        """Go on behind that id."""
        self._after = list(position["after"]) if position else []


def _behind(last: Any) -> Mapping[str, Any]:
    if not isinstance(last, str) and str(last).lower() in ("nan", "snan"):
        return {"$gte": -math.inf}  # the smallest number, which no comparison finds
    return {"$gt": last}


def _codes_between(last: Any, highest: Any) -> list[int]:
    """The types that come after that of one id, up to that of another."""
    return [code for codes in _CODES[_rank(last) + 1 : _rank(highest) + 1] for code in codes]


def _rank(value: Any) -> int:
    name = type(value).__name__
    return next((rank for rank, names in enumerate(_ORDER) if name in names), len(_ORDER))
