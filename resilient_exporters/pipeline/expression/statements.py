"""Statements: the small code of a function, in the same bounds as expressions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from resilient_exporters.pipeline.errors import LimitExceeded
from resilient_exporters.pipeline.expression.budget import WORK, Frame, charge, hashable
from resilient_exporters.pipeline.expression.compiler import Compiler
from resilient_exporters.pipeline.expression.nodes import UNSET, Step, is_fixed, parse
from resilient_exporters.pipeline.expression.operations import BINARY, iterate

__all__ = ["Program"]

_MAX_CALLS: Final = 30
_BREAK: Final = object()
_CONTINUE: Final = object()


class Program:
    """The functions that a text defines, and the constants beside them.

    Args:
        source: Python text of functions, and assignments of constants.
        modules: tables of names.

    Raises:
        InvalidExpression: something in it is not allowed.
    """

    def __init__(self, source: str, modules: Mapping[str, Any]) -> None:
        self.source = source
        self.functions: dict[str, Callable[..., Any]] = {}
        constants: dict[str, Any] = {}
        defined: list[ast.FunctionDef] = []
        outside = Compiler(source, modules, (), constants=constants)
        for node in parse(source, "exec").body:
            if isinstance(node, ast.FunctionDef):
                defined.append(node)
            elif isinstance(node, ast.Assign) and all(isinstance(one, ast.Name) for one in node.targets):
                value = outside.step(node.value)([[WORK], *[UNSET] * outside.size])
                if not is_fixed(value):
                    raise outside.refuse(node, f"a {type(value).__name__} outside of a function (it would be changed)")
                constants.update({one.id: value for one in node.targets if isinstance(one, ast.Name)})
            elif not _is_text(node):
                raise outside.refuse(node, f"{type(node).__name__} outside of a function")
        for definition in defined:
            self.functions[definition.name] = _later(self.functions, definition.name)  # each may call each
        for definition in defined:
            body = _Body(source, modules, definition, self.functions, constants)
            self.functions[definition.name] = body.run


def _later(functions: Mapping[str, Callable[..., Any]], name: str) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return functions[name](*args, **kwargs)

    return run


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


class _Body(Compiler):
    """One function."""

    def __init__(
        self, source: str, modules: Mapping[str, Any], node: ast.FunctionDef, functions: Any, constants: Any
    ) -> None:
        given = node.args
        names = [one.arg for one in given.args]
        super().__init__(source, modules, names, dict(functions), constants)
        if node.decorator_list or given.vararg or given.kwarg or given.kwonlyargs or given.posonlyargs:
            raise self.refuse(node, f"{node.name} with a decorator, *, ** or /")
        self.name, self.names = node.name, names
        self._defaults: list[Any] = []
        for default in given.defaults:
            step = self.step(default)
            if id(default) not in self._known:
                raise self.refuse(default, f"the default {ast.unparse(default)[:40]} (only a constant)")
            self._defaults.append(step([]))
        self._cost = sum(1 for _ in ast.walk(node))
        self._do = self._block(node.body)

    def run(self, frame: Frame, *args: Any, **kwargs: Any) -> Any:
        """Call it, with the cell and the depth of the frame of the caller."""
        cell = frame[0]
        charge(frame, self._cost)
        if len(cell) > _MAX_CALLS:
            raise LimitExceeded(None, f"more than {_MAX_CALLS} calls within each other")
        values = [*args, *[UNSET] * (len(self.names) - len(args))]
        for place, default in enumerate(self._defaults, len(self.names) - len(self._defaults)):
            values[place] = default if values[place] is UNSET else values[place]
        for name, value in kwargs.items():
            if name not in self.names[len(args) :]:
                raise TypeError(f"{self.name} has no parameter {name}, or it is given twice")
            values[self.names.index(name)] = value
        if len(values) != len(self.names) or any(value is UNSET for value in values):
            raise TypeError(f"{self.name} takes {', '.join(self.names)}")
        cell.append(None)
        try:
            found = self._do([cell, *values, *[UNSET] * (self.size - len(values))])
        finally:
            cell.pop()
        return found[0] if type(found) is tuple else None

    # -- statements: None goes on, a tuple of one returns that -------------------------------------------------------

    def _block(self, nodes: Sequence[ast.stmt]) -> Step:
        steps = [self._statement(node) for node in nodes]

        def block(frame: Frame) -> Any:
            for step in steps:
                found = step(frame)
                if found is not None:
                    return found
            return None

        return block

    def _statement(self, node: ast.stmt) -> Step:
        kind = type(node).__name__
        made: Step | None = getattr(self, f"_do_{kind.lower()}", lambda _: None)(node)
        if made is None:
            self.step(node)  # type: ignore[arg-type]  # refuses it, by its name
            raise self.refuse(node, kind)
        return made

    def _do_pass(self, _: ast.Pass) -> Step:
        return lambda _: None

    def _do_break(self, _: ast.Break) -> Step:
        return lambda _: _BREAK

    def _do_continue(self, _: ast.Continue) -> Step:
        return lambda _: _CONTINUE

    def _do_expr(self, node: ast.Expr) -> Step:
        value = self.step(node.value)

        def step(frame: Frame) -> None:
            value(frame)

        return step

    def _do_return(self, node: ast.Return) -> Step:
        if node.value is None:
            return lambda _: (None,)
        value = self.step(node.value)
        return lambda frame: (value(frame),)

    def _do_assign(self, node: ast.Assign) -> Step:
        value = self.step(node.value)
        binds = [self.target(one) for one in node.targets]

        def step(frame: Frame) -> None:
            found = value(frame)
            for bind in binds:
                bind(frame, found)

        return step

    def _do_annassign(self, node: ast.AnnAssign) -> Step:
        if node.value is None:
            return lambda _: None
        value, bind = self.step(node.value), self.target(node.target)
        return lambda frame: bind(frame, value(frame))

    def _do_augassign(self, node: ast.AugAssign) -> Step:
        function = BINARY.get(type(node.op).__name__)
        if function is None:
            raise self.refuse(node, "the operator @=")
        made, value = function, self.step(node.value)

        def changed(frame: Frame, before: Any, more: Any) -> Any:
            if isinstance(before, list) and made is BINARY["Add"]:
                before.extend(list(iterate(frame, more, 1)))
                return before
            return made(frame, before, more)

        if isinstance(node.target, ast.Name):
            bind = self.target(node.target)
            old = self.step(ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target))
            return lambda frame: bind(frame, changed(frame, old(frame), value(frame)))
        if isinstance(node.target, ast.Subscript):
            holder, key = self.step(node.target.value), self.step(node.target.slice)

            def step(frame: Frame) -> None:
                target, place = holder(frame), hashable(frame, key(frame))
                if isinstance(place, slice):
                    raise TypeError("a slice cannot be assigned to")
                target[place] = changed(frame, target[place], value(frame))

            return step
        raise self.refuse(node, f"assigning to {ast.unparse(node.target)[:40]}")

    def _do_delete(self, node: ast.Delete) -> Step:
        places: list[tuple[Step, Step]] = []
        for one in node.targets:
            if not isinstance(one, ast.Subscript):
                raise self.refuse(node, f"del {ast.unparse(one)[:40]}")
            places.append((self.step(one.value), self.step(one.slice)))

        def step(frame: Frame) -> None:
            for holder, key in places:
                target, place = holder(frame), hashable(frame, key(frame))
                charge(frame, len(target) >> 4)
                del target[place]

        return step

    def _do_if(self, node: ast.If) -> Step:
        test, body, orelse = self.step(node.test), self._block(node.body), self._block(node.orelse)
        return lambda frame: body(frame) if test(frame) else orelse(frame)

    def _do_while(self, node: ast.While) -> Step:
        test, body, orelse = self.step(node.test), self._block(node.body), self._block(node.orelse)
        cost = sum(1 for _ in ast.walk(node))

        def step(frame: Frame) -> Any:
            while test(frame):
                charge(frame, cost)
                found = body(frame)
                if found is _BREAK:
                    return None
                if found is not None and found is not _CONTINUE:
                    return found
            return orelse(frame)

        return step

    def _do_for(self, node: ast.For) -> Step:
        source, bind = self.step(node.iter), self.target(node.target)
        body, orelse = self._block(node.body), self._block(node.orelse)
        cost = sum(1 for _ in ast.walk(node))

        def step(frame: Frame) -> Any:
            for one in iterate(frame, source(frame), cost):
                bind(frame, one)
                found = body(frame)
                if found is _BREAK:
                    return None
                if found is not None and found is not _CONTINUE:
                    return found
            return orelse(frame)

        return step
