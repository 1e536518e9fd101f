"""Rows looked at as a whole: one call for all values of a batch tells whether the drivers take them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

__all__ = ["EXACT_FLOAT", "PLAIN", "PLAIN_SQLITE", "RowCheck", "exact", "whole"]

_NONE: Final = type(None)


def whole(bits: int) -> Any:
    """The kind of a whole number of so many bits, as msgspec knows it."""
    return Annotated[int, msgspec.Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]


EXACT_FLOAT: Final = Annotated[float, msgspec.Meta(gt=-(2.0**53), lt=2.0**53)]
"""Floats that are finite, and so small that every whole number among them is one: msgspec takes ints for floats."""

PLAIN: Final[dict[str, Any]] = {
    "int": whole(64) | bool | None, "float": EXACT_FLOAT | None, "bool": bool | None, "text": str | None,
}  # fmt: skip
"""Kinds of the values that servers' drivers take as they are, by family of the column.

A boolean in a column of whole numbers is MySQL's way to keep one: only that column
is left to its codec then.
"""

PLAIN_SQLITE: Final[dict[str, Any]] = {
    "int": whole(64) | bool | None, "float": EXACT_FLOAT | bool | None, "bool": whole(64) | bool | None,
    "text": str | None,
}  # fmt: skip

_EXACT: Final[dict[str, frozenset[type]]] = {
    "int": frozenset({int, _NONE}), "float": frozenset({float, bool, _NONE}),
    "bool": frozenset({int, bool, _NONE}), "text": frozenset({str, _NONE}),
}  # fmt: skip


def exact(family: str, values: Sequence[Any]) -> bool:
    """Whether values that `RowCheck` lets pass are of the very types of a family.

    For msgspec, an enumeration of texts is text, and a Decimal is a float.
    """
    return set(map(type, values)) <= _EXACT[family]


class RowCheck:
    """Whether all values of some rows are of the kinds that their columns take as they are.

    What is told here of limits need not be looked for in each column. Where it says no, nothing is wrong yet: each
    value is then looked at by its column's codec, which may convert it. Where it says yes, `exact` tells the few
    other types that msgspec takes for these.

    Args:
        kinds: of each field, as a type for msgspec, or None where every value has to be looked at in any case.

    Attributes:
        places: the fields that it looks at.
    """

    def __init__(self, kinds: Sequence[Any]) -> None:
        every = tuple(Any if kind is None else kind for kind in kinds)
        self.places = frozenset(place for place, kind in enumerate(kinds) if kind is not None)
        self._rows: Any = list[tuple.__class_getitem__(every)]  # type: ignore[misc] # made at run time

    def __call__(self, rows: Sequence[Sequence[Any]]) -> bool:
        """Look at rows."""
        try:
            msgspec.convert(rows, self._rows)
        except (msgspec.ValidationError, ValueError, ArithmeticError):  # the latter from inside of odd values
            return False
        return True
