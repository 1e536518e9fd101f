"""Groups by the values of keys."""

from __future__ import annotations

from typing import Any

from resilient_exporters.pipeline.groupers.base import BaseRecordGrouper
from resilient_exporters.pipeline.nested import MISSING, nested
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["FileKeyGrouper"]

_UNKNOWN = "unknown"


class FileKeyGrouper(BaseRecordGrouper):
    """Groups records by the values of keys; a missing one, or None, is "unknown".

    Example:
        >>> grouper = FileKeyGrouper(keys=["country", "place.city"])
        >>> [record.group_membership for record in grouper.group_batch([BaseRecord(country="es")])]
        [('es', 'unknown')]
    """

    supported_options = {
        "keys": Option(type=ListOf(str), help="Keys to group by; a dot stands between the keys of a nested value."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._keys: list[str] = self.read_option("keys")
        self._paths = [tuple(key.split(".")) for key in self._keys]

    def group_of(self, item: BaseRecord) -> tuple[Any, ...]:
        """The values of the keys."""
        item.group_key = list(self._keys)
        found = [item.get(path[0]) if len(path) == 1 else nested(item, path) for path in self._paths]
        return tuple(_UNKNOWN if value is None or value is MISSING else value for value in found)
