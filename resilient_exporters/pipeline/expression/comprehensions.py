"""Displays and comprehensions, and what puts values into variables."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from resilient_exporters.pipeline.expression.budget import Frame, charge, charged, hashable
from resilient_exporters.pipeline.expression.nodes import Nodes, Step
from resilient_exporters.pipeline.expression.operations import iterate

__all__ = ["Comprehensions"]


class Comprehensions(Nodes):
    """The nodes of lists, dicts and the like, written out or by a rule."""

    def _elements(self, nodes: Sequence[ast.expr]) -> Step:
        """The elements of a display, or the arguments of a call, with ``*`` for those of another value."""
        if not any(isinstance(node, ast.Starred) for node in nodes):
            steps = self._steps(nodes)
            if len(steps) == 1:
                only = steps[0]
                return lambda frame: [only(frame)]
            return lambda frame: [step(frame) for step in steps]
        parts = [
            (isinstance(node, ast.Starred), self.step(node.value if isinstance(node, ast.Starred) else node))
            for node in nodes
        ]
        for node in nodes:
            if isinstance(node, ast.Starred):
                self._constant_if(node, [node.value])

        def step(frame: Frame) -> list[Any]:
            found: list[Any] = []
            for starred, part in parts:
                if starred:
                    found.extend(list(charged(frame, part(frame))))
                else:
                    found.append(part(frame))
            return found

        return step

    def _starred(self, node: ast.Starred) -> Step:
        raise self.refuse(node, "* here")

    def _list(self, node: ast.List) -> Step:
        elements = self._elements(node.elts)
        self._constant_if(node, node.elts)
        return elements

    def _tuple(self, node: ast.Tuple) -> Step:
        elements = self._elements(node.elts)
        return self._tried(node, lambda frame: tuple(elements(frame)), node.elts)

    def _set(self, node: ast.Set) -> Step:
        elements = self._elements(node.elts)
        self._constant_if(node, node.elts)
        return lambda frame: {hashable(frame, value) for value in elements(frame)}

    def _dict(self, node: ast.Dict) -> Step:
        pairs = [(None if key is None else self.step(key), self.step(value))
                 for key, value in zip(node.keys, node.values, strict=True)]  # fmt: skip

        def step(frame: Frame) -> dict[Any, Any]:
            found: dict[Any, Any] = {}
            for key, value in pairs:
                if key is None:
                    more = value(frame)
                    charge(frame, len(more))
                    found.update(more)
                else:
                    found[hashable(frame, key(frame))] = value(frame)
            return found

        return step

    # -- comprehensions ----------------------------------------------------------------------------------------------

    def _listcomp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Step:
        return self._comprehension(node, node.elt, None)

    _generatorexp = _listcomp

    def _setcomp(self, node: ast.SetComp) -> Step:
        values = self._listcomp(node)
        return lambda frame: {hashable(frame, value) for value in values(frame)}

    def _dictcomp(self, node: ast.DictComp) -> Step:
        pairs = self._comprehension(node, node.key, node.value)
        return lambda frame: {hashable(frame, key): value for key, value in pairs(frame)}

    def _comprehension(self, node: Any, element: ast.expr, second: ast.expr | None) -> Step:
        """A list of all elements; of pairs, if there is a second."""
        cost = sum(1 for _ in ast.walk(node))
        self._scopes.append({})
        loops = []
        for each in node.generators:
            if each.is_async:
                raise self.refuse(node, "async")
            source = self.step(each.iter)
            bind = self.target(each.target, sure=True)
            loops.append((source, bind, self._steps(each.ifs)))
        value: Step = self.step(element)
        place = next(iter(self._scopes[-1].values()), 0)
        if second is not None:
            first, other = value, self.step(second)
            value = lambda frame: (first(frame), other(frame))  # noqa: E731 - one of two
        self._scopes.pop()

        if len(loops) == 1 and isinstance(node.generators[0].target, ast.Name):
            return _loop(place, loops[0], value, cost + 1)

        def walk(frame: Frame, depth: int, found: list[Any]) -> None:
            source, bind, tests = loops[depth]
            for one in iterate(frame, source(frame), cost):
                bind(frame, one)
                if all(test(frame) for test in tests):
                    if depth + 1 < len(loops):
                        walk(frame, depth + 1, found)
                    else:
                        found.append(value(frame))

        def step(frame: Frame) -> list[Any]:
            found: list[Any] = []
            walk(frame, 0, found)
            return found

        return step

    def target(self, node: ast.expr, sure: bool = False) -> Callable[[Frame, Any], None]:
        """What puts a value into a variable, or several, or into a place of a value."""
        if isinstance(node, ast.Name):
            place = self.declare(node, node.id, sure)

            def bind(frame: Frame, value: Any) -> None:
                frame[place] = value

            return bind
        if isinstance(node, (ast.Tuple, ast.List)):
            binds = [self.target(one, sure) for one in node.elts]

            def unpack(frame: Frame, value: Any) -> None:
                values = list(charged(frame, value))
                if len(values) != len(binds):
                    raise ValueError(f"{len(binds)} values are expected, not {len(values)}")
                for each, one in zip(binds, values, strict=True):
                    each(frame, one)

            return unpack
        if isinstance(node, ast.Subscript) and not sure:
            holder, key = self.step(node.value), self.step(node.slice)
            self.changes = True

            def put(frame: Frame, value: Any) -> None:
                given = key(frame)
                if isinstance(given, slice):
                    raise TypeError("a slice cannot be assigned to")
                holder(frame)[hashable(frame, given)] = value

            return put
        raise self.refuse(node, f"assigning to {ast.unparse(node)[:40]}")


def _loop(place: int, loop: tuple[Step, Any, list[Step]], value: Step, cost: int) -> Step:
    """The most usual comprehension: over one source, with one variable."""
    source, _, tests = loop

    def step(frame: Frame) -> list[Any]:
        found: list[Any] = []
        cell = frame[0]
        for one in source(frame):
            cell[0] -= cost
            if cell[0] < 0:
                charge(frame, 0)
            frame[place] = one
            for test in tests:
                if not test(frame):
                    break
            else:
                found.append(value(frame))
        return found

    return step
