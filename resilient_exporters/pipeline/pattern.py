"""Regular expressions that cannot run away.

``re`` tries again and again where a pattern can match a text in many ways, and nothing can interrupt it. So the
number of ways is estimated from the pattern and the length of the text; where there may be too many, the package
``regex`` does the search, which keeps to a time limit. Without that package such a search is refused.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator
from typing import Any, Final

from resilient_exporters.pipeline.errors import LimitExceeded
from resilient_exporters.pipeline.pattern_cost import Cost

__all__ = ["Pattern", "kept"]

_LONGEST: Final = 2_000
_STEPS: Final = 2_000_000
_WRITTEN_OUT: Final = 20_000  # regex would need the memory for it
_SECONDS: Final = 0.1  # it notices late
_UNITS_PER_SECOND: Final = 5_000_000
_TEXT: Final = 1_000_000


class Pattern:
    """A regular expression with a bound on the time for one text.

    Args:
        pattern: as ``re`` has it.
        flags: of ``re``.

    Raises:
        ValueError: it is none, or too long.
    """

    FUNCTIONS = ("findall", "finditer", "fullmatch", "match", "search", "split", "sub")

    def __init__(self, pattern: str, flags: int = 0) -> None:
        if not isinstance(pattern, (str, bytes)):
            raise ValueError(f"a regular expression is a text, not a {type(pattern).__name__}")  # noqa: TRY004 - as documented
        if len(pattern) > _LONGEST:
            raise ValueError(f"a regular expression of more than {_LONGEST:,} characters")
        self.pattern = pattern
        self.flags = int(flags) & ~int(re.DEBUG)
        try:
            self._re = re.compile(pattern, self.flags)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{pattern!r:.80} is no regular expression: {error}") from error
        self._cost = Cost(pattern, self.flags)

    @classmethod
    def of(cls, pattern: Any, flags: int = 0) -> Pattern:
        """The same, kept for the next time; a Pattern is itself."""
        return pattern if isinstance(pattern, cls) else kept(pattern, int(flags))

    def match(self, text: str) -> Any:
        """``re.match``.

        Raises:
            LimitExceeded: it would take too long.
        """
        return self._run("match", text)[0]

    def fullmatch(self, text: str) -> Any:
        """``re.fullmatch``; raises as ``match``."""
        return self._run("fullmatch", text)[0]

    def search(self, text: str) -> Any:
        """``re.search``; raises as ``match``."""
        return self._run("search", text)[0]

    def _run(self, name: str, text: Any) -> tuple[Any, int]:
        """What ``re`` or ``regex`` finds, and how many steps it took at most; for finditer a list."""
        if len(text) > _TEXT:
            raise LimitExceeded(None, f"a regular expression on a text of more than {_TEXT:,} characters")
        steps = self._cost.steps(len(text), name not in ("match", "fullmatch"))
        if steps <= _STEPS:
            found = getattr(self._re, name)(text)
            return (list(found) if name == "finditer" else found), int(steps) >> 4
        compiled = self._limited
        if compiled is None:
            raise LimitExceeded(
                None, f"{self.pattern!r:.80} may match a text of {len(text)} characters in too many ways; for most "
                "such patterns: pip install 'resilient-exporters[expressions]'"
            )  # fmt: skip
        begin = time.perf_counter()
        try:
            found = getattr(compiled, name)(text, timeout=_SECONDS)
            found = list(found) if name == "finditer" else found
        except (TimeoutError, MemoryError) as error:
            raise LimitExceeded(
                None, f"{self.pattern!r:.80} takes too long on a text of {len(text)} characters"
            ) from error
        return found, int((time.perf_counter() - begin) * _UNITS_PER_SECOND)

    @functools.cached_property
    def _limited(self) -> Any:
        if self._cost.written_out > _WRITTEN_OUT:
            return None
        try:
            import regex
        except ModuleNotFoundError:
            return None
        names = ("ASCII", "IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE", "UNICODE")
        flags = sum(int(getattr(regex, name)) for name in names if self.flags & int(getattr(re, name)))
        try:
            return regex.compile(self.pattern, flags | int(regex.VERSION0))
        except regex.error:
            return None

    # -- for expressions: charged to a frame -------------------------------------------------------------------------

    def _charged(self, frame: Any, name: str, text: Any) -> Any:
        found, units = self._run(name, text)
        _pay(frame, units)
        return found

    def charged_match(self, frame: Any, text: Any) -> Any:
        """``match``, charged to a frame."""
        return self._charged(frame, "match", text)

    def charged_fullmatch(self, frame: Any, text: Any) -> Any:
        """``fullmatch``, charged to a frame."""
        return self._charged(frame, "fullmatch", text)

    def charged_search(self, frame: Any, text: Any) -> Any:
        """``search``, charged to a frame."""
        return self._charged(frame, "search", text)

    def charged_finditer(self, frame: Any, text: Any) -> Any:
        """``finditer``, as a list."""
        self._room(frame, text)
        return self._charged(frame, "finditer", text)

    def charged_findall(self, frame: Any, text: Any) -> Any:
        """``findall``."""
        self._room(frame, text)
        return self._charged(frame, "findall", text)

    def charged_split(self, frame: Any, text: Any, maxsplit: int = 0) -> list[Any]:
        """``split``."""
        self._room(frame, text)
        parts: list[Any] = []
        end = 0
        for match in self._some(frame, text, maxsplit):
            parts += (text[end : match.start()], *match.groups())
            end = match.end()
        return [*parts, text[end:]]

    def charged_sub(self, frame: Any, replacement: Any, text: Any, count: int = 0) -> Any:
        """``sub``; the replacement is a text.

        Raises:
            LimitExceeded: it would take too long, or make too much.
        """
        if not isinstance(replacement, (str, bytes)):
            raise TypeError("the replacement in re.sub is a text here, not a function")
        self._room(frame, text)
        mark = "\\" if isinstance(replacement, str) else b"\\"
        marks = replacement.count(mark)  # type: ignore[arg-type]  # both are of one type
        parts: list[Any] = []
        end = length = 0
        for match in self._some(frame, text, count):
            longest = max(map(len, filter(None, (match.group(), *match.groups()))), default=0)
            length += len(replacement) + marks * longest + match.start() - end
            if length > _TEXT:
                raise LimitExceeded(None, f"a text of more than {_TEXT:,} characters")
            parts += (text[end : match.start()], match.expand(replacement) if marks else replacement)
            end = match.end()
        return text[:0].join((*parts, text[end:]))

    def _some(self, frame: Any, text: Any, count: int) -> Iterator[Any]:
        found = self._charged(frame, "finditer", text)
        return iter(found[:count] if count > 0 else found)

    def _room(self, frame: Any, text: Any) -> None:
        _pay(frame, len(text) * (self._re.groups + 1))

    def __repr__(self) -> str:
        return f"Pattern({self.pattern!r})"


@functools.lru_cache(maxsize=256)
def kept(pattern: Any, flags: int) -> Pattern:
    """A pattern made before, or a new one."""
    return Pattern(pattern, flags)


def _pay(frame: Any, units: int) -> None:
    """As ``expression.budget.charge``, which stands above this module."""
    cell = frame[0]
    cell[0] -= units
    if cell[0] < 0:
        raise LimitExceeded(None, "its regular expressions take too much time for one record")
