"""A collection of Scrapy Cloud's storage as a target: records, or what they are reduced to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.hubstorage import API_KEY, ENDPOINT, Collection, packed
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.writers.base import OUTDATED, BaseWriter
from resilient_exporters.pipeline.writers.reduce import ReduceWriter

__all__ = ["HubstorageReduceWriter", "HubstorageWriter"]

_PATH: Final = re.compile(r"(?P<base>.*/)collections/(?P<project>\d+)/s/(?P<name>\w+)/?")


class HubstorageWriter(BaseWriter):
    """Stores records in a collection, each under its key, before the batch is committed.

    A batch that is written again after an interruption replaces itself. Values that JSON does not know are stored as
    text, times in ISO 8601.
    """

    formats = groups = False
    supported_options = {
        **OUTDATED,
        "apikey": API_KEY,
        "project_id": Option(type=(int, str), help="Number of the project."),
        "collection_name": Option(type=str, help="Name of the collection; it is made if need be."),
        "key_field": Option(type=str, default="_key", help="Field with the key; without it a record is a bad one."),
        "endpoint": ENDPOINT,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._key_field: str = self.read_option("key_field")
        self._collection = Collection(
            type(self).__name__,
            self.read_option("project_id"),
            self.read_option("collection_name"),
            self.read_option("apikey"),
            self.read_option("endpoint"),
        )
        self._taken: list[dict[str, Any]] = []

    def write_record(self, record: BaseRecord) -> None:
        """Take one record."""
        key = record.get(self._key_field)
        if key is None or key == "":
            self._leave_out(record, f"it has no key in {self._key_field!r} (key_field)")
            return
        try:
            self._taken.append(packed(record, str(key)))
        except ValueError as error:
            self._leave_out(record, error)

    def _leave_out(self, record: BaseRecord, error: object) -> None:
        self.bad_records.add(record, error, part=self.part)
        self.items_count -= 1  # it will be counted as written, and it is not

    def prepare(self) -> None:
        """Store what was taken."""
        # Of several records with one key the last one counts, and one question must not hold a key twice.
        self._collection.set(list({record["_key"]: record for record in self._taken}.values()))
        self._taken = []

    def finish_writing(self) -> None:
        """Used alone, without a pipeline, it stores what was taken."""
        if self._taken:
            self.prepare()

    def close(self) -> None:
        """Close connections."""
        self._collection.close()


def _parsed(url: str) -> re.Match[str]:
    found = _PATH.fullmatch(url) if urlsplit(url).scheme in ("http", "https") else None
    if found is None:
        raise ValueError("right would be https://storage.scrapinghub.com/collections/PROJECT/s/NAME")
    return found


class HubstorageReduceWriter(ReduceWriter):
    """Reduces the records to one value as ``ReduceWriter`` does, and stores it after each batch under one key.

    What is stored is the value, if it is a mapping, else ``{"value": …}``; with ``_finished``, which is true once all
    records are in it.
    """

    supported_options = {
        "collection_url": Option(
            type=str, check=_parsed, help="https://storage.scrapinghub.com/collections/PROJECT/s/NAME."
        ),
        "key": Option(type=str, help="Key under which the value is stored."),
        "apikey": API_KEY,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._key: str = self.read_option("key")
        if not self._key:
            raise ConfigurationError(None, "key='': give the key under which the value is to be stored")
        place = _parsed(self.read_option("collection_url"))
        self._collection = Collection(
            type(self).__name__, place["project"], place["name"], self.read_option("apikey"), place["base"]
        )

    def committed(self) -> None:
        """Store the value as it was committed."""
        super().committed()
        self._store(finished=False)

    def finish_writing(self) -> None:
        """Store the value as that of all records."""
        super().finish_writing()
        self._store(finished=True)

    def _store(self, *, finished: bool) -> None:
        value = self.reduced_result
        if value is None and not finished:
            return
        fields = dict(value) if isinstance(value, Mapping) else {"value": value}
        self._collection.set([packed({**fields, "_finished": finished}, self._key)])

    def close(self) -> None:
        """Close connections."""
        self._collection.close()
