"""Calls, and attributes."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from resilient_exporters.pipeline.errors import InvalidExpression
from resilient_exporters.pipeline.expression import methods
from resilient_exporters.pipeline.expression.budget import Frame, Table, charge
from resilient_exporters.pipeline.expression.comprehensions import Comprehensions
from resilient_exporters.pipeline.expression.names import BUILTINS, MODULES
from resilient_exporters.pipeline.expression.nodes import Step, none

__all__ = ["Calls", "tables"]


class Calls(Comprehensions):
    """The nodes of calls and attributes."""

    # -- attributes and calls ----------------------------------------------------------------------------------------

    def _entry(self, node: ast.expr) -> Any:
        """What a dotted name stands for in the tables; None: it is not of them."""
        if isinstance(node, ast.Name):
            if self.place_of(node.id) is not None:
                return None
            return self.functions.get(node.id) or self.modules.get(node.id) or BUILTINS.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        table = self._entry(node.value)
        if not isinstance(table, Table):
            return None
        if node.attr not in table.entries:
            there = f"; {table.name} has {', '.join(sorted(table.entries)) or 'no attributes'} here"
            raise self.refuse(node, f"{ast.unparse(node)[:60]}{there}")
        return table.entries[node.attr]

    def _attribute(self, node: ast.Attribute) -> Step:
        if node.attr.startswith("_"):
            raise self.refuse(node, f"the attribute {node.attr}")
        entry = self._entry(node)
        if isinstance(entry, tuple):
            return self._fixed(node, entry[0])
        if entry is not None:
            raise self.refuse(node, f"{ast.unparse(node)[:40]} as a value: call it")
        name = node.attr
        if name not in methods.attributes():
            what = f"the method {name} without a call" if name in methods.KNOWN else f"the attribute {name}"
            raise self.refuse(node, what)
        value = self.step(node.value)
        return lambda frame: methods.attribute(value(frame), name)

    def _call(self, node: ast.Call) -> Step:
        if isinstance(node.func, ast.Name) and node.func.id == "isinstance" and self.place_of("isinstance") is None:
            return self._isinstance(node)
        entry = self._entry(node.func)
        pure = not (isinstance(node.func, ast.Name) and node.func.id in self.functions)
        if isinstance(entry, Table):
            pure, entry = entry.pure, entry.call
            self.changes = self.changes or not pure  # one of them shuffles a list in its place
        if callable(entry):
            given = self._elements(node.args)
            named = self._named(node.keywords)
            made: Any = entry
            only = self._only(node)
            step: Step = lambda frame: made(frame, *given(frame))  # noqa: E731 - one of three
            if only is not None:
                first = only
                step = lambda frame: made(frame, first(frame))  # noqa: E731 - the most usual, and faster
            elif named is not None:
                options = named
                step = lambda frame: made(frame, *given(frame), **options(frame))  # noqa: E731 - one of three
            parts = [*node.args, *(keyword.value for keyword in node.keywords)]
            return self._tried(node, step, parts) if pure else step
        if isinstance(node.func, ast.Attribute) and entry is None:
            return self._method(node, node.func)
        raise self.refuse(node, f"the call of {ast.unparse(node.func)[:60]}")

    def _method(self, node: ast.Call, func: ast.Attribute) -> Step:
        name, value = func.attr, self.step(func.value)  # what is refused inside of it is the cause: say that
        if name.startswith("_") or name not in methods.KNOWN:
            raise self.refuse(node, f"the method {name}")
        self.changes = self.changes or name in methods.CHANGING
        named = self._named(node.keywords)
        find = methods.method
        if named is None and name == "get" and 1 <= len(node.args) <= 2 and isinstance(node.args[0], ast.Constant):
            key = node.args[0].value
            default = self.step(node.args[1]) if len(node.args) == 2 else none

            def look(frame: Frame) -> Any:
                target = value(frame)
                if isinstance(target, dict):
                    return target[key] if key in target else default(frame)
                return find(target, name)(frame, target, key, default(frame))

            return look
        given, only = self._elements(node.args), self._only(node)
        last: tuple[Any, Any] = (None, None)  # the type of the last value, and its method: one pair, for any thread

        def method(target: Any) -> Any:
            nonlocal last
            kind, found = last
            if type(target) is not kind:
                found = find(target, name)
                last = (type(target), found)
            return found

        if named is not None:
            options = named

            def step(frame: Frame) -> Any:
                target = value(frame)
                return find(target, name)(frame, target, *given(frame), **options(frame))
        elif not node.args:

            def step(frame: Frame) -> Any:
                target = value(frame)
                return method(target)(frame, target)
        elif only is not None:
            first = only

            def step(frame: Frame) -> Any:
                target = value(frame)
                return method(target)(frame, target, first(frame))
        else:

            def step(frame: Frame) -> Any:
                target = value(frame)
                return find(target, name)(frame, target, *given(frame))

        return self._tried(node, step, [func.value, *node.args, *(keyword.value for keyword in node.keywords)])

    def _only(self, node: ast.Call) -> Step | None:
        """The step of the only argument, where there is only one."""
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            return None
        return self.step(node.args[0])

    def _named(self, keywords: Sequence[ast.keyword]) -> Step | None:
        if not keywords:
            return None
        pairs = [(keyword.arg, self.step(keyword.value)) for keyword in keywords]

        def step(frame: Frame) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for name, value in pairs:
                if name is None:
                    more = value(frame)
                    charge(frame, len(more))
                    found.update(more)
                else:
                    found[name] = value(frame)
            return found

        return step

    def _isinstance(self, node: ast.Call) -> Step:
        if len(node.args) != 2 or node.keywords:
            raise self.refuse(node, "isinstance with other than two arguments")
        value, second = self.step(node.args[0]), node.args[1]
        kinds = tuple(self._kind(one) for one in (second.elts if isinstance(second, ast.Tuple) else [second]))
        return lambda frame: isinstance(value(frame), kinds)

    def _kind(self, node: ast.expr) -> Any:
        entry = self._entry(node)
        if not isinstance(entry, Table) or entry.kind is None:
            raise self.refuse(node, f"{ast.unparse(node)[:40]} as a class")
        return entry.kind


def tables(modules: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The tables of an expression's names.

    Args:
        modules: further names for modules, or for classes in them: ``{"dt": "datetime.datetime"}``.

    Raises:
        InvalidExpression: there is no table of that name.
    """
    found: dict[str, Any] = dict(MODULES)
    for name, path in (modules or {}).items():
        entry: Any = None
        if isinstance(path, str):
            entry = MODULES.get(path.partition(".")[0])
            for part in path.split(".")[1:]:
                entry = entry.entries.get(part) if isinstance(entry, Table) else None
        if entry is None or isinstance(entry, tuple):
            raise InvalidExpression(
                None, f"imports={{{name!r}: {path!r:.60}}}: only {', '.join(MODULES)} can be used in expressions"
            )
        found[name] = entry
    return found
