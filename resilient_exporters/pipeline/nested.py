"""Values that lie deeper in a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["MISSING", "nested"]

MISSING: Final = object()


def nested(item: Mapping[str, Any], path: Iterable[str]) -> Any:
    """The value at a path of keys; MISSING if it leads nowhere.

    Example:
        >>> nested({"a": {"b": 1}}, ("a", "b"))
        1
    """
    found: Any = item
    for key in path:
        if not isinstance(found, Mapping):
            return MISSING
        found = found.get(key, MISSING)
        if found is MISSING:
            return MISSING
    return found
