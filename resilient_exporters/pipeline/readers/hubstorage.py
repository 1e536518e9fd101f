"""A collection of Scrapy Cloud's storage as a source."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final

from resilient_exporters.pipeline.asking import StopAsked
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.hubstorage import API_KEY, ENDPOINT, Collection
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.units import parse_count

__all__ = ["HubstorageReader"]

_KEYS: Final = 100  # in one question, for an address has a length


def _counting(value: int) -> int:
    return parse_count(value, "batch_size")


class HubstorageReader(BaseReader):
    """Reads a collection in the order of its keys; with ``secondary_collections``, joined with what these have.

    A record of a secondary collection under the same key adds its fields, and replaces those of the same name. The
    position is the last key. The storage is read a page at a time until a page is empty, so that an answer that was
    cut off ends nothing.
    """

    supported_options = {
        "apikey": API_KEY,
        "project_id": Option(type=(int, str), help="Number of the project."),
        "collection_name": Option(type=str, help="Name of the collection."),
        "count": Option(type=int, default=0, help="Records after which the run ends; 0: no limit."),
        "batch_size": Option(type=int, default=10_000, check=_counting, help="Records of a page, and of a batch."),
        "prefixes": Option(type=ListOf(str), default=[], help="Only keys that begin with one of these."),
        "exclude_prefixes": Option(type=ListOf(str), default=[], help="No keys that begin with one of these."),
        "secondary_collections": Option(
            type=ListOf(str), default=[], help="Collections of the same project whose fields are added."
        ),
        "startts": Option(
            type=(int, str),
            default=None,
            help="Only what was stored from then on: milliseconds since 1970, or ISO 8601.",
        ),
        "endts": Option(type=(int, str), default=None, help="Only what was stored before then."),
        "endpoint": ENDPOINT,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = [self.read_option("collection_name"), *self.read_option("secondary_collections")]
        self._collection, *self._others = [
            Collection(
                type(self).__name__,
                self.read_option("project_id"),
                name,
                self.read_option("apikey"),
                self.read_option("endpoint"),
                self._stops,
            )
            for name in names
        ]
        self._prefixes = _disjoint(self.read_option("prefixes")) or [""]
        self._excluded = tuple(self.read_option("exclude_prefixes"))
        self._times = {name: _milliseconds(name, self.read_option(name)) for name in ("startts", "endts")}
        self._count: int = self.read_option("count")
        self._last: str | None = None
        self._given = 0

    def _stops(self) -> bool:
        return self.stopping()

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next page."""
        try:
            page = self._page()
            if page and self._others:
                page = self._joined(page)
        except StopAsked:
            return
        for record in page:
            self._last = record["_key"]
            if not record["_key"].startswith(self._excluded or ("\0never",)):
                self._given += 1
                yield record
                if self._count and self._given >= self._count:
                    break
        self.finished = not page or bool(self._count and self._given >= self._count)

    def _page(self) -> list[dict[str, Any]]:
        """What comes after the last key; an empty list: nothing."""
        for prefix in self._prefixes:
            if self._last is not None and _is_past(prefix, self._last):
                continue
            after = self._last if self._last is not None and self._last.startswith(prefix) else None
            page = self._collection.get(
                prefix=prefix, startafter=after, count=self.read_option("batch_size"), **self._times
            )
            if page and after is not None and min(record["_key"].encode() for record in page) <= after.encode():
                raise PipelineError(
                    None, f"the storage gave keys again that lie before {after!r}: it ignores startafter"
                )
            if page:
                return sorted(page, key=lambda record: str(record["_key"]).encode())
        return []

    def _joined(self, page: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = {record["_key"]: record for record in page}
        keys = list(found)
        for other in self._others:
            for start in range(0, len(keys), _KEYS):
                for record in other.get(key=keys[start : start + _KEYS]):
                    if record["_key"] in found:
                        found[record["_key"]].update(record)
        return page

    def get_last_position(self) -> Any:
        """The last key."""
        return {"last_key": self._last, "given": self._given}

    def set_last_position(self, position: Any) -> None:
        """Go on behind that key."""
        if position:
            self._last, self._given = position["last_key"], position.get("given", 0)

    def close(self) -> None:
        """Close connections."""
        for collection in (self._collection, *self._others):
            collection.close()


def _disjoint(prefixes: list[str]) -> list[str]:
    """Prefixes in the order of keys, without those that another one holds."""
    found: list[str] = []
    for prefix in sorted(set(prefixes), key=str.encode):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return found


def _is_past(prefix: str, key: str) -> bool:
    """Whether all keys with a prefix lie before a key."""
    return prefix.encode() < key.encode() and not key.startswith(prefix)


def _milliseconds(name: str, value: int | str | None) -> int | None:
    if value is None or isinstance(value, int):
        return value
    if value.isdigit():
        return int(value)
    try:
        moment = dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError as error:
        raise ConfigurationError(
            None, f"{name}={value!r}: give milliseconds since 1970, or a time such as 2026-01-31T12:00:00Z"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.timezone.utc)
    return round(moment.timestamp() * 1000)
