"""The tree of an expression, and what all its nodes have in common."""

from __future__ import annotations

import ast
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from resilient_exporters.pipeline.errors import InvalidExpression
from resilient_exporters.pipeline.expression.budget import WORK, Frame
from resilient_exporters.pipeline.expression.names import BUILTINS, MODULES

__all__ = ["UNSET", "Nodes", "Step", "is_fixed", "none", "parse"]

Step = Callable[[Frame], Any]
UNSET: Final = object()
_MAX_SOURCE: Final = 20_000
_MAX_NODES: Final = 5_000
_MAX_DEPTH: Final = 80
_FIXED: Final = (str, bytes, int, float, bool, type(None), range, dt.date, dt.timedelta, dt.timezone)
_ALLOWED: Final = (
    "allowed are item[…], literals, operators, comparisons, `a if b else c`, comprehensions, methods of values, and "
    f"the functions of {', '.join(MODULES)} and {', '.join(sorted(BUILTINS))}"
)
_REFUSED: Final = {
    "Lambda": "a lambda", "NamedExpr": "an assignment by :=", "Await": "await", "Yield": "yield", "YieldFrom": "yield",
    "Import": "an import", "ImportFrom": "an import", "Global": "global", "Nonlocal": "nonlocal", "With": "with",
    "Try": "try", "TryStar": "try", "ClassDef": "a class", "Raise": "raise", "Assert": "assert", "Match": "match",
    "AsyncFunctionDef": "async", "AsyncFor": "async", "AsyncWith": "async",
}  # fmt: skip


def parse(source: object, mode: str) -> Any:
    """The tree of a text, checked for its size.

    Raises:
        InvalidExpression: it is none, or too large.
    """
    if not isinstance(source, str) or not source.strip():
        raise InvalidExpression(None, f"{source!r:.80} is no expression: give a text")
    if len(source) > _MAX_SOURCE:
        raise InvalidExpression(None, f"{source[:60]!r}… is longer than {_MAX_SOURCE:,} characters")
    try:
        tree = ast.parse(source.strip() if mode == "eval" else source, mode=mode)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise InvalidExpression(None, f"{source[:80]!r} cannot be read: {str(error) or 'nested too deeply'}") from None
    level: list[ast.AST] = [tree]
    nodes = depth = 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise InvalidExpression(None, f"{source[:60]!r}… is nested too deeply, or too long: make it simpler")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return tree


class Nodes:
    """Makes one function of one expression, or of the body of one function.

    Args:
        source: for messages.
        modules: names of modules to their tables.
        parameters: names of the variables that are given.
        functions: names of functions that may be called, beside those of the tables; called with the frame first.
        constants: names that stand for a value.

    Attributes:
        size: how many values a frame needs beside the first, the cell with what is left.
        changes: the expression can change a value that it was given.
    """

    def __init__(
        self,
        source: str,
        modules: Mapping[str, Any],
        parameters: Sequence[str],
        functions: Mapping[str, Any] | None = None,
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        self.source = source
        self.modules = modules
        self.functions = {} if functions is None else functions
        self.constants = constants or {}
        self.size = len(parameters)
        self.changes = False
        self._sure = set(range(1, len(parameters) + 1))
        self._scopes: list[dict[str, int]] = [{name: place + 1 for place, name in enumerate(parameters)}]
        self._known: dict[int, Any] = {}  # the values of nodes that have always the same
        self._constants: set[int] = set()  # and the nodes that depend on nothing else
        self._cell = [WORK]

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def refuse(self, node: ast.AST, what: str) -> InvalidExpression:
        """The error for a part that is not allowed."""
        place = f" (line {getattr(node, 'lineno', 1)})" if "\n" in self.source.strip() else ""
        shown = self.source.strip() if len(self.source.strip()) <= 100 else f"{self.source.strip()[:100]}…"
        return InvalidExpression(None, f"{shown!r}: {what} is not allowed{place}; {_ALLOWED}")

    # -- variables ---------------------------------------------------------------------------------------------------

    def place_of(self, name: str) -> int | None:
        """Where the value of a variable stands in a frame."""
        return next((scope[name] for scope in reversed(self._scopes) if name in scope), None)

    def declare(self, node: ast.AST, name: str, sure: bool = False) -> int:
        """A new variable of the innermost scope, or the one there is."""
        if name.startswith("__"):
            raise self.refuse(node, f"the name {name}")
        scope = self._scopes[-1]
        if name not in scope:
            self.size += 1
            scope[name] = self.size
        if sure:
            self._sure.add(scope[name])
        return scope[name]

    def _tried(self, node: ast.AST, step: Step, parts: Sequence[ast.AST]) -> Step:
        """Compute it now if it depends on no record: what cannot be is said before any comes."""
        if not self._constant_if(node, parts):
            return step
        try:
            value = step([self._cell, *[UNSET] * self.size])
        except Exception as error:
            text = ast.unparse(node)
            raise InvalidExpression(
                None, f"{text[:80]!r} cannot be computed: {type(error).__name__}: {str(error)[:300]}"
            ) from error
        if not is_fixed(value):
            return step
        return self._fixed(node, value)

    def _constant_if(self, node: ast.AST, parts: Sequence[ast.AST]) -> bool:
        """Whether a node depends on constants only."""
        constant = all(id(part) in self._constants for part in parts)
        if constant:
            self._constants.add(id(node))
        return constant

    def _fixed(self, node: ast.AST, value: Any) -> Step:
        self._known[id(node)] = value
        self._constants.add(id(node))
        return lambda _: value

    # -- expressions -------------------------------------------------------------------------------------------------

    def step(self, node: ast.expr) -> Step:
        """The function of a node."""
        kind = type(node).__name__
        made: Step | None = getattr(self, f"_{kind.lower()}", none)(node)
        if made is None:
            raise self.refuse(node, _REFUSED.get(kind, f"{kind}"))
        return made

    def _steps(self, nodes: Sequence[ast.expr]) -> list[Step]:
        return [self.step(node) for node in nodes]


def is_fixed(value: object) -> bool:
    """Whether a value can never change."""
    return isinstance(value, _FIXED) or (isinstance(value, tuple) and all(isinstance(one, _FIXED) for one in value))


def none(_: object) -> None:
    """The step of what is not there."""
    return
