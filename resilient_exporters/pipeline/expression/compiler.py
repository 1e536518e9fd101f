"""From the parse tree of an expression to nested functions, made once; nothing is ever given to the interpreter."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any, Final

from resilient_exporters.pipeline.expression.budget import PLAIN, Frame, charge
from resilient_exporters.pipeline.expression.calls import Calls
from resilient_exporters.pipeline.expression.names import BUILTINS
from resilient_exporters.pipeline.expression.nodes import UNSET, Step, none
from resilient_exporters.pipeline.expression.operations import BINARY, COMPARE, UNARY, formatted, get

__all__ = ["Compiler"]


class Compiler(Calls):
    """Makes one function of one expression, or of the body of one function; arguments as ``Nodes``."""

    def _constant(self, node: ast.Constant) -> Step:
        if isinstance(node.value, complex) or node.value is Ellipsis:
            raise self.refuse(node, f"{node.value!r}")
        return self._fixed(node, node.value)

    def _name(self, node: ast.Name) -> Step:
        place = self.place_of(node.id)
        name = node.id
        if place is None and name in self.constants:
            return self._fixed(node, self.constants[name])
        if place is None:
            if name in self.modules or name in BUILTINS or name in self.functions:
                raise self.refuse(node, f"{name} as a value: call it, as in {name}(…)")
            raise self.refuse(node, f"the name {name}")
        if place in self._sure:
            return operator.itemgetter(place)

        def step(frame: Frame) -> Any:
            value = frame[place]
            if value is UNSET:
                raise NameError(f"{name} has no value yet")
            return value

        return step

    def _binop(self, node: ast.BinOp) -> Step:
        left, right = self.step(node.left), self.step(node.right)
        function = BINARY.get(type(node.op).__name__)
        if function is None:
            raise self.refuse(node, "the operator @")
        made = function
        return self._tried(node, lambda frame: made(frame, left(frame), right(frame)), (node.left, node.right))

    def _unaryop(self, node: ast.UnaryOp) -> Step:
        value, function = self.step(node.operand), UNARY[type(node.op).__name__]
        return self._tried(node, lambda frame: function(value(frame)), (node.operand,))

    def _boolop(self, node: ast.BoolOp) -> Step:
        *first, last = self._steps(node.values)
        stop = isinstance(node.op, ast.Or)

        def step(frame: Frame) -> Any:
            for value in first:
                found = value(frame)
                if bool(found) is stop:
                    return found
            return last(frame)

        return step

    def _compare(self, node: ast.Compare) -> Step:
        first, steps = self.step(node.left), self._steps(node.comparators)
        names = [type(op).__name__ for op in node.ops]
        functions = [COMPARE[name] for name in names]
        if len(steps) == 1:
            right = node.comparators[0]
            return self._tried(node, self._compared(names[0], first, steps[0], right), (node.left, right))

        def step(frame: Frame) -> Any:
            left = first(frame)
            found: Any = True
            for function, step in zip(functions, steps, strict=True):
                right = step(frame)
                found = function(frame, left, right)
                if not found:
                    return found
                left = right
            return found

        return step

    def _compared(self, name: str, left: Step, right: Step, node: ast.expr) -> Step:
        function = COMPARE[name]
        simple = _SIMPLE.get(name)
        if simple is not None and _short(self._known.get(id(node))):
            known, compare = self._known[id(node)], simple
            return lambda frame: compare(left(frame), known)
        if name in ("In", "NotIn") and isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            values = [self._known.get(id(one)) for one in node.elts]
            if all(map(_short, values)):
                fixed = tuple(values)
                if name == "In":
                    return lambda frame: left(frame) in fixed
                return lambda frame: left(frame) not in fixed
        return lambda frame: function(frame, left(frame), right(frame))

    def _ifexp(self, node: ast.IfExp) -> Step:
        test, body, orelse = self.step(node.test), self.step(node.body), self.step(node.orelse)
        return lambda frame: body(frame) if test(frame) else orelse(frame)

    def _subscript(self, node: ast.Subscript) -> Step:
        target, key = self.step(node.value), self.step(node.slice)
        if isinstance(node.slice, ast.Constant):
            known = node.slice.value
            if isinstance(node.value, ast.Name) and (place := self.place_of(node.value.id)) in self._sure:
                return lambda frame: frame[place][known]
            step: Step = lambda frame: target(frame)[known]  # noqa: E731 - one of several
        else:
            step = lambda frame: get(frame, target(frame), key(frame))  # noqa: E731 - one of several
        return self._tried(node, step, (node.value, node.slice))

    def _slice(self, node: ast.Slice) -> Step:
        lower, upper, stride = (
            self.step(one) if one is not None else none for one in (node.lower, node.upper, node.step)
        )
        return lambda frame: slice(lower(frame), upper(frame), stride(frame))

    def _joinedstr(self, node: ast.JoinedStr) -> Step:
        parts = self._steps(node.values)

        def step(frame: Frame) -> str:
            texts: list[str] = []
            for part in parts:
                text = part(frame)
                charge(frame, len(text) >> 4)
                texts.append(text)
            return "".join(texts)

        return self._tried(node, step, node.values)

    def _formattedvalue(self, node: ast.FormattedValue) -> Step:
        value = self.step(node.value)
        spec = self.step(node.format_spec) if node.format_spec is not None else lambda _: ""
        conversion = chr(node.conversion) if node.conversion > 0 else ""
        parts = [node.value] if node.format_spec is None else [node.value, node.format_spec]
        return self._tried(node, lambda frame: formatted(frame, value(frame), spec(frame), conversion), parts)


_SIMPLE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "Eq": operator.eq, "NotEq": operator.ne, "Lt": operator.lt, "LtE": operator.le, "Gt": operator.gt,
    "GtE": operator.ge, "Is": operator.is_, "IsNot": operator.is_not,
}  # fmt: skip


def _short(value: object) -> bool:
    """Whether comparing with it takes no time, whatever the other one is. None is also: not known, or a None."""
    return (type(value) in PLAIN and value is not None) or (isinstance(value, str) and len(value) <= 10_000)
