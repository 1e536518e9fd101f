"""How often ``re`` may try, at most, to match a pattern: an upper bound, from its parse tree."""

from __future__ import annotations

import functools
import math
import operator
import re
import sys
from typing import Any, Final

if sys.version_info >= (3, 11):
    from re import _parser as parser  # type: ignore[attr-defined] # the parser of re has no stub
else:
    import sre_parse as parser

__all__ = ["Cost"]

# A set of characters is a bit mask: one bit for each below 256, and one for each kind of those above.
_LATIN: Final = 256
_WORD, _SPACE, _DIGIT, _OTHER = (1 << _LATIN + number for number in range(4))
_ABOVE: Final = _WORD | _SPACE | _DIGIT | _OTHER
_ALL: Final = (1 << _LATIN) - 1 | _ABOVE
_MANY: Final = 1e12
_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


def _mask(pattern: str) -> int:
    found = re.compile(pattern)
    return sum(1 << number for number in range(_LATIN) if found.match(chr(number)))


# A category takes every character that it has under any flag.
_CATEGORIES: Final = {
    "CATEGORY_DIGIT": _mask(r"\d") | _DIGIT,
    "CATEGORY_SPACE": _mask(r"\s") | _SPACE,
    "CATEGORY_WORD": _mask(r"\w") | _WORD | _DIGIT,
    "CATEGORY_NOT_DIGIT": _ALL & ~_mask(r"[0-9]"),
    "CATEGORY_NOT_SPACE": _ALL & ~_mask(r"[ \t\n\r\f\v]"),
    "CATEGORY_NOT_WORD": _ALL & ~_mask(r"[A-Za-z0-9_]"),
}


class Cost:
    """The cost of one pattern.

    Args:
        pattern: that ``re`` takes.
        flags: of ``re``.
    """

    def __init__(self, pattern: Any, flags: int) -> None:
        tree = parser.parse(pattern, flags)
        found = tree.state.flags
        self._ignore_case = bool(found & re.IGNORECASE)
        self._multiline = bool(found & re.MULTILINE)
        self._exact = isinstance(pattern, str) and not found & re.ASCII
        self._tree = list(tree)
        self._size = len(pattern) + 1
        self._known: dict[tuple[int, bool], float] = {}

    @property
    def written_out(self) -> int:
        """How long the pattern is with its counted repetitions written out, as the package ``regex`` compiles it."""
        return self._written_out(self._tree)

    def _written_out(self, tree: list[Any]) -> int:
        total = 0
        for code, argument in tree:
            total += 1
            if str(code) in _REPEATS:
                low, high, body = argument
                total += self._written_out(list(body)) * (int(low) + 1 if high >= parser.MAXREPEAT else int(high) + 1)
            elif isinstance(argument, (tuple, list)):
                parts = argument[1] if str(code) == "BRANCH" else argument
                total += sum(self._written_out(list(part)) for part in parts if isinstance(part, parser.SubPattern))
            elif isinstance(argument, parser.SubPattern):
                total += self._written_out(list(argument))
        return total

    def steps(self, length: int, anywhere: bool) -> float:
        """At most so many steps.

        Args:
            length: of the text.
            anywhere: tried at every place of the text, rather than at its beginning only.
        """
        length = 1 << max(length, 1).bit_length()  # few different ones: they are kept
        known = self._known.get((length, anywhere))
        if known is None:
            ways = self._ways(self._tree, length, 0)
            begins = str(self._tree[0][1]) if self._tree and str(self._tree[0][0]) == "AT" else ""
            fixed = begins == "AT_BEGINNING_STRING" or (begins == "AT_BEGINNING" and not self._multiline)
            tries = length if anywhere and not fixed else 1
            known = tries * ways * (self._futile(self._tree, length) + self._size) + length
            self._known[length, anywhere] = known
        return known

    def _futile(self, tree: list[Any], length: int) -> int:
        """How many characters a try can look at and still fail."""
        if not tree:
            return 0
        *before, (code, argument) = tree
        total = sum(self._width(one, length) for one in before)
        if str(code) == "SUBPATTERN":
            return min(length, total + self._futile(list(argument[3]), length))
        if str(code) in _REPEATS and self._single(argument[2]):
            return min(length, total + int(argument[0]))  # all that comes after the least number is success
        return min(length, total + self._width((code, argument), length))

    def _width(self, one: Any, length: int) -> int:
        code, argument = str(one[0]), one[1]
        if code in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return 1
        if code == "AT":
            return 0
        if code == "SUBPATTERN":
            return min(length, sum(self._width(each, length) for each in argument[3]))
        if code == "BRANCH":
            return min(length, sum(self._width(each, length) for branch in argument[1] for each in branch))
        if code in _REPEATS:
            body = sum(self._width(each, length) for each in argument[2])
            return int(min(length, body * min(int(argument[1]), length)))
        return length

    def _ways(self, tree: list[Any], length: int, follow: int) -> float:
        """In how many ways a sequence can match, at most; ``follow`` is what may come after it.

        A repetition that can be followed by none of its own characters has one way only: with fewer of them, what
        comes next fails at once. At the end of a pattern nothing follows: there all is success.
        """
        total = 1.0
        for place, (code, argument) in enumerate(tree):
            after, nullable = self._first(tree[place + 1 :])
            total *= self._one(str(code), argument, length, after | (follow if nullable else 0))
            if total > _MANY:
                return math.inf
        return total

    def _one(self, code: str, argument: Any, length: int, follow: int) -> float:
        if code in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"):
            return 1
        if code in _REPEATS:
            return self._repeat(argument, length, follow)
        if code == "SUBPATTERN" and not argument[1] and not argument[2]:
            return self._ways(list(argument[3]), length, follow)
        if code == "ATOMIC_GROUP":
            return self._ways(list(argument), length, 0)
        if code == "BRANCH":
            return self._branch([list(branch) for branch in argument[1]], length, follow)
        if code in ("ASSERT", "ASSERT_NOT"):
            return self._ways(list(argument[1]), length, 0) + 1
        if code == "GROUPREF":
            return 2.0 * length  # comparing takes time
        return math.inf  # unknown, or with flags of its own: too many

    def _branch(self, branches: list[list[Any]], length: int, follow: int) -> float:
        ways = [self._ways(branch, length, follow) for branch in branches]
        seen = 0
        for branch in branches:
            own, nullable = self._first(branch)
            if own & seen or nullable:
                return sum(ways)
            seen |= own
        return max(ways)  # the first character says which one

    def _repeat(self, argument: Any, length: int, follow: int) -> float:
        low, high = min(int(argument[0]), length), min(int(argument[1]), length)
        body = list(argument[2])
        own, nullable = self._first(body)
        inner = 1.0 if self._single(body) else self._ways(body, length, own | follow)
        if inner > 1 or nullable:
            inner = max(inner, 2.0)
            return math.inf if high * math.log(inner) > math.log(_MANY) else inner**high
        return high - low + 1 if own & follow else 1

    @staticmethod
    def _single(body: Any) -> bool:
        return len(body) == 1 and str(body[0][0]) in ("LITERAL", "NOT_LITERAL", "ANY", "IN")

    def _first(self, tree: list[Any]) -> tuple[int, bool]:
        """With what characters a match can begin, and whether it can be empty."""
        found = 0
        for code, argument in tree:
            more, nullable = self._first_of(str(code), argument)
            found |= more
            if not nullable:
                return found, False
        return found, True

    def _first_of(self, code: str, argument: Any) -> tuple[int, bool]:
        if code == "AT":
            # Where a text ends, none of the characters before can go on; other places say nothing.
            return (0, not (str(argument) == "AT_END_STRING" or (str(argument) == "AT_END" and not self._multiline)))
        if code == "LITERAL":
            return self._literal(argument), False
        if code == "NOT_LITERAL":
            return _ALL if self._ignore_case or argument >= _LATIN else _ALL & ~(1 << argument), False
        if code == "ANY":
            return _ALL, False
        if code == "IN":
            return self._set(argument), False
        if code == "SUBPATTERN":
            return self._first(list(argument[3]))
        if code == "BRANCH":
            each = [self._first(list(branch)) for branch in argument[1]]
            return functools.reduce(operator.or_, (first for first, _ in each), 0), any(empty for _, empty in each)
        if code in _REPEATS:
            low, _, body = argument
            found, nullable = self._first(list(body))
            return found, nullable or low == 0
        return _ALL, True

    def _literal(self, number: int) -> int:
        if number >= _LATIN:
            return _ALL if self._ignore_case else _ABOVE
        if not self._ignore_case:
            return 1 << number
        text = chr(number)
        found = sum(1 << ord(one) for one in {*text.lower(), *text.upper(), text} if ord(one) < _LATIN)
        return found | (_ABOVE if text.isalpha() else 0)

    def _set(self, members: Any) -> int:
        found = 0
        negate = False
        for code, argument in members:
            name = str(code)
            if name == "NEGATE":
                negate = True
            elif name == "LITERAL":
                found |= self._literal(argument)
            elif name == "RANGE":
                low, high = argument
                for number in range(low, min(high, _LATIN - 1) + 1):
                    found |= self._literal(number)
                if high >= _LATIN:
                    found |= _ABOVE
            elif name == "CATEGORY":
                found |= self._category(str(argument))
            else:
                return _ALL
        return _ALL & ~self._surely(members) if negate else found

    def _surely(self, members: Any) -> int:
        """What is surely in a set: what is left of one that was taken too large would be too small."""
        sure = 0
        for code, argument in members:
            if str(code) == "LITERAL" and argument < _LATIN:
                sure |= 1 << argument
            elif str(code) == "RANGE":
                sure |= sum(1 << number for number in range(argument[0], min(argument[1], _LATIN - 1) + 1))
            elif str(code) == "CATEGORY" and not str(argument).startswith("CATEGORY_NOT"):
                sure |= _ALL & ~self._category(str(argument).replace("CATEGORY_", "CATEGORY_NOT_"))
        return sure

    def _category(self, name: str) -> int:
        opposite = name.replace("_NOT_", "_")
        if self._exact and opposite != name:
            return _ALL & ~_CATEGORIES[opposite]
        return _CATEGORIES.get(name, _ALL)
