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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group_key: list[str] = []
        self.group_membership: tuple[Any, ...] = ()
