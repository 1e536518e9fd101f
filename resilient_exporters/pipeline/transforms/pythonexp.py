"""Records changed, or made anew, by expressions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resilient_exporters.pipeline.expression import Expression
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.transforms.base import BaseRecordTransform

__all__ = ["PythonMapTransform", "PythonexpTransform"]


class PythonexpTransform(BaseRecordTransform):
    """Changes a record by expressions such as ``item.update(total=item['price'] * 2)``, one after the other.

    Expressions are restricted, see ``resilient_exporters.pipeline.expression``.

    Raises:
        InvalidExpression: one holds something that is not allowed.
    """

    supported_options = {
        "python_expressions": Option(
            type=ListOf(str), help="Expressions that change the record, which is called item, in their order."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._changes = [Expression(source) for source in self.read_option("python_expressions")]

    def transform(self, item: BaseRecord) -> Iterable[dict[str, Any]]:
        """The record, changed."""
        for change in self._changes:
            change(item)
        return (item,)


class PythonMapTransform(BaseRecordTransform):
    """Makes a new record by an expression such as ``{**item, 'name': item['name'].title()}``.

    The expression is restricted, see ``resilient_exporters.pipeline.expression``.

    Raises:
        InvalidExpression: it holds something that is not allowed.
    """

    supported_options = {
        "map": Option(type=str, help="Expression over the record, which is called item, that gives the new record."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._map = Expression(self.read_option("map"))

    def transform(self, item: BaseRecord) -> Iterable[dict[str, Any]]:
        """The new record."""
        found = self._map.data(item)
        if not isinstance(found, dict):
            raise TypeError(f"{self._map.source[:80]!r} gave a {type(found).__name__}, not a dict: {found!r:.60}")
        return (found,)
