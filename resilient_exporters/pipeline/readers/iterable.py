"""Any iterable of records as a reader."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from resilient_exporters.pipeline.metadata import ExportMetadata
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.readers.base import BaseReader

__all__ = ["IterableReader"]


class IterableReader(BaseReader):
    """Reads from any iterable. A resume leaves out as many records as were read: it must give the same ones again.

    Args:
        iterable: of mappings.
        config, metadata: as of every module.
        **options: ``batch_size``.
    """

    supported_options = {
        "batch_size": Option(type=int, default=1000, help="Records in a batch."),
    }

    def __init__(
        self,
        iterable: Iterable[Any] = (),
        config: Mapping[str, Any] | None = None,
        metadata: ExportMetadata | None = None,
        **options: Any,
    ) -> None:
        super().__init__(config, metadata, **options)
        self._iterable = iterable
        self._iterator: Iterator[Any] | None = None
        self._at = 0

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next records."""
        if self._iterator is None:
            self._iterator = iter(self._iterable)
            for _ in itertools.islice(self._iterator, self._at):
                pass
        number = 0
        size = self.read_option("batch_size")
        for record in itertools.islice(self._iterator, size):
            number += 1
            self._at += 1
            if isinstance(record, dict):
                yield record
            elif isinstance(record, Mapping):
                yield dict(record)
            else:
                self.bad_records.add(record, "no mapping", part=self.part, where=f"record {self._at}")
        self.finished = number < size

    def get_last_position(self) -> Any:
        """How many were read."""
        return {"last_read": self._at}

    def set_last_position(self, position: Any) -> None:
        """Leave out as many."""
        self._at = position["last_read"] if position else 0
