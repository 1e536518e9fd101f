"""Any iterable of records as a reader."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any

from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.metadata import ExportMetadata
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.units import parse_count

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["IterableReader"]


class IterableReader(BaseReader):
    """Reads from any iterable. A resume leaves out as many records as were read: it must give the same ones again.

    Args:
        iterable: of mappings; or a section of a configuration.
        config, metadata: as of every module.
        **options: ``batch_size``.
    """

    supported_options = {
        "function": Option(
            type=str,
            default=None,
            help="In a configuration: dotted path of a function without arguments that returns the iterable.",
        ),
        "batch_size": Option(
            type=int, default=1000, check=lambda value: parse_count(value, "batch_size"), help="Records in a batch."
        ),
    }

    def __init__(
        self,
        iterable: Iterable[Any] = (),
        config: Mapping[str, Any] | None = None,
        metadata: ExportMetadata | None = None,
        **options: Any,
    ) -> None:
        if isinstance(iterable, Mapping):
            if not iterable or set(iterable) - {"name", "options"} or config is not None:
                raise ConfigurationError(None, f"{iterable!r:.80} is one mapping: give an iterable of them")
            config = iterable  # a section of a configuration: in every other module it comes first
            iterable = ()
        if isinstance(iterable, (str, bytes)) or not any(hasattr(iterable, n) for n in ("__iter__", "__getitem__")):
            raise ConfigurationError(None, f"{iterable!r:.80} is no iterable of records: give a list or a generator")
        super().__init__(config, metadata, **options)
        path = self.read_option("function")
        self._iterable: Iterable[Any] = iterable if path is None else _Called(path)
        self._iterator: Iterator[Any] | None = None
        self._at = 0

    @classmethod
    def from_section(cls, config: Mapping[str, Any], metadata: ExportMetadata | None = None) -> Self:
        """With what the function of the option gives.

        Raises:
            ConfigurationError: there is none, or it cannot be loaded.
        """
        made = cls((), config, metadata)
        if made.read_option("function") is None:
            raise ConfigurationError(None, "Option function is missing: the dotted path of one that returns records")
        return made

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next records."""
        if self._iterator is None:
            self._iterator = iter(self._iterable)
            left_out = sum(1 for _ in itertools.islice(self._iterator, self._at))
            if left_out < self._at:
                self.logger.warning("%d records were read before; the source has %d only now", self._at, left_out)
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
        self._iterator = None
        self._at = position["last_read"] if position else 0

    def share_done(self) -> float | None:
        """Share of the records that were read, where the iterable knows how many it has."""
        number = len(self._iterable) if isinstance(self._iterable, Sized) else 0
        return min(self._at / number, 1.0) if number else None


class _Called:
    """Calls a function when the records are asked for: a check calls nothing."""

    def __init__(self, path: str) -> None:
        module, _, name = path.replace(":", ".").rpartition(".")
        try:
            self._function = getattr(importlib.import_module(module), name)
        except (Exception, SystemExit) as error:  # somebody else's module, and what it does when it is imported
            raise ConfigurationError(None, f"function={path!r} cannot be loaded: {error}") from error
        if not callable(self._function):
            raise ConfigurationError(None, f"function={path!r} is no function but {self._function!r:.60}")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._function())
