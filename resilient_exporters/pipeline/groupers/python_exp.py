"""Groups by the values of expressions."""

from __future__ import annotations

from typing import Any

from resilient_exporters.pipeline.expression import Expression
from resilient_exporters.pipeline.groupers.base import BaseRecordGrouper
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["PythonExpGrouper"]


class PythonExpGrouper(BaseRecordGrouper):
    """Groups records by the values of expressions such as ``item['time'][:10]``.

    Expressions are restricted, see ``resilient_exporters.pipeline.expression``.

    Raises:
        InvalidExpression: one holds something that is not allowed.
    """

    supported_options = {
        "python_expressions": Option(type=ListOf(str), help="Expressions over the record, which is called item."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._expressions = [Expression(source) for source in self.read_option("python_expressions")]

    def group_of(self, item: BaseRecord) -> tuple[Any, ...]:
        """The values of the expressions."""
        return tuple(expression.data(item) for expression in self._expressions)
