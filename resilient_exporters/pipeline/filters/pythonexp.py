"""Records for which an expression is true."""

from __future__ import annotations

from typing import Any

from resilient_exporters.pipeline.expression import Expression
from resilient_exporters.pipeline.filters.base import BaseRecordFilter
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["PythonexpFilter"]


class PythonexpFilter(BaseRecordFilter):
    """Lets a record pass if an expression is true for it.

    The expression is restricted, see ``resilient_exporters.pipeline.expression``.

    Raises:
        InvalidExpression: it holds something that is not allowed.

    Example:
        >>> PythonexpFilter(python_expression="item['celsius'] > 30").filter({"celsius": 31})
        True
    """

    supported_options = {
        "python_expression": Option(type=str, help="Expression over the record, which is called item."),
        "imports": Option(
            type=dict, default={}, help="Further names for the modules that expressions have: {'dt': 'datetime'}."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._expression = Expression(self.read_option("python_expression"), modules=self.read_option("imports"))

    def filter(self, item: BaseRecord) -> bool:
        """Whether the expression is true."""
        return bool(self._expression(item))
