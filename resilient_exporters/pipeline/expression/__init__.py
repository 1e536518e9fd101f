"""Expressions and small functions in configurations, in an evaluator of their own.

A configuration may come from someone who must not run programs here. So an expression is read by ``ast``, checked part
by part against fixed tables, and made into nested Python functions once; nothing is ever given to the interpreter.

Allowed are:

- the record as ``item``; literals, f-strings, operators, comparisons, ``a if b else c``, comprehensions;
- methods of texts, lists, dicts, sets, times and matches, from fixed lists (``item.update(…)`` is one);
- functions of datetime, re, itertools, calendar, math and random, and of the language (``len``, ``int``, ``sorted`` …);
- in small functions also assignments, ``if``, ``for``, ``while``, ``return``, and calls of each other.

Everything else is refused when the expression is read: attributes and names with ``__``, imports, lambdas, other calls.
One evaluation does at most ``WORK`` units of work, and makes no text or number beyond a bound; whatever goes beyond
fails with ``LimitExceeded``, and is refused at once where only constants are concerned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resilient_exporters.pipeline.errors import ExpressionError, InvalidExpression, LimitExceeded
from resilient_exporters.pipeline.expression.budget import MAX_BITS, MAX_TEXT, WORK, weigh
from resilient_exporters.pipeline.expression.calls import tables
from resilient_exporters.pipeline.expression.compiler import Compiler
from resilient_exporters.pipeline.expression.nodes import UNSET, parse
from resilient_exporters.pipeline.expression.statements import Program

__all__ = [
    "MAX_BITS", "MAX_TEXT", "WORK", "Expression", "Function", "check_data", "compile_expression", "compile_function",
]  # fmt: skip


class Expression:
    """An expression, ready to be computed for one record after the other.

    Args:
        source: its text.
        names: of the values that it gets; default ``item``.
        modules: further names for the modules that there are: ``{"dt": "datetime"}``.

    Raises:
        InvalidExpression: it is none, or holds something that is not allowed; the text says what, and what is.

    Attributes:
        changes: it may change a value that it gets.

    Example:
        >>> Expression("item['celsius'] * 9 / 5 + 32")({"celsius": 20})
        68.0
    """

    def __init__(self, source: str, names: Sequence[str] = ("item",), modules: Mapping[str, str] | None = None) -> None:
        compiler = Compiler(source, tables(modules), names)
        self._step = compiler.step(parse(source, "eval").body)
        self._empty = [UNSET] * (compiler.size - len(names))
        self._count = len(names)
        self.source = source.strip()
        self.changes = compiler.changes

    def __call__(self, *values: Any) -> Any:
        """Compute it; what it may have made of the values is checked, too.

        Raises:
            LimitExceeded: it would take too much time or memory.
            ExpressionError: it cannot be computed for these values.
        """
        try:
            frame = [[WORK], *values, *self._empty]
            found = self._step(frame)
            if self.changes:
                for value in values:
                    weigh(frame, value, data=True)
        except Exception as error:
            raise _told(error, self.source) from error
        return found

    def data(self, *values: Any) -> Any:
        """Compute it for a value that is to be part of a record; raises as a call does."""
        try:
            frame = [[WORK], *values, *self._empty]
            found = self._step(frame)
            for value in (found, *values) if self.changes else (found,):
                weigh(frame, value, data=True)
        except Exception as error:
            raise _told(error, self.source) from error
        return found

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"


class Function:
    """A small function of a configuration; call it as any function.

    Args:
        source: Python text with one or more functions; they may call each other.
        name: of the one that is meant.

    Raises:
        InvalidExpression: it holds something that is not allowed, or no function of that name.

    Attributes:
        parameters: names of its parameters.
    """

    def __init__(self, source: str, name: str) -> None:
        program = Program(source, tables())
        if name not in program.functions:
            there = ", ".join(program.functions) or "none"
            raise InvalidExpression(None, f"the code defines no function {name}; it defines {there}")
        self._run = program.functions[name]
        self.name = name
        self.source = source

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it.

        Raises:
            LimitExceeded: it would take too much time or memory.
            ExpressionError: it failed.
        """
        try:
            return self._run([[WORK]], *args, **kwargs)
        except Exception as error:
            raise _told(error, self.name) from error

    def __repr__(self) -> str:
        return f"Function({self.name})"


def compile_expression(
    source: str, names: Sequence[str] = ("item",), modules: Mapping[str, str] | None = None
) -> Expression:
    """An expression as a callable: see ``Expression``."""
    return Expression(source, names, modules)


def compile_function(source: str, name: str) -> Function:
    """A function of a small program as a callable: see ``Function``."""
    return Function(source, name)


def check_data(value: Any) -> None:
    """Check that a value which an expression made can be kept: it is data, and not too large nor nested too deeply.

    Raises:
        LimitExceeded: too large, or nested too deeply; also what holds the same thing very often.
        TypeError: no data, for instance an iterator.
    """
    weigh([[10 * WORK]], value, data=True)


def _told(error: Exception, source: str) -> ExpressionError:
    shown = source if len(source) <= 80 else f"{source[:80]}…"
    if isinstance(error, LimitExceeded):
        return LimitExceeded(None, f"{shown!r}: {error}")
    return ExpressionError(None, f"{shown!r}: {type(error).__name__}: {str(error)[:300]}")
