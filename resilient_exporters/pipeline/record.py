"""The record of a pipeline: a dict that knows its group."""

from __future__ import annotations

from typing import Any

__all__ = ["BaseRecord"]


class BaseRecord(dict[str, Any]):
    """One record on its way through a pipeline.

    Attributes:
        group_key: names of the keys that it is grouped by; set by a grouper.
        group_membership: values that name its group; empty: no group.
    """

    __slots__ = ("group_key", "group_membership")

    # Set by a grouper only: a record without a group costs no more than its dict.
    group_key: list[str]
    group_membership: tuple[Any, ...]

    def __getattr__(self, name: str) -> Any:
        if name == "group_membership":
            return ()
        if name == "group_key":
            self.group_key = []
            return self.group_key
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
