"""Format keywords in texts: ``{name}`` as str.format has it, and braces that are none of them left alone."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from resilient_exporters.tasks.errors import TaskError

__all__ = ["fields", "find_fields", "format_text", "replace_fields"]

_NAME: Final = r"[A-Za-z_]\w*"
#: A field with what may follow its name: attributes and items, a conversion, a format.
_FIELD: Final = re.compile(rf"{{(?P<name>{_NAME})(?P<rest>(?:\.\w+|\[[^\]{{}}]+\])*(?:![rsa])?(?::[^{{}}]*)?)}}")
_ESCAPED: Final = re.compile(rf"{{{{({_NAME})}}}}")


def format_text(text: str, keywords: Mapping[str, Any], what: str = "text") -> str:
    """Put keywords into a text.

    A text that str.format takes is formatted by it, doubled braces and all. In any other, only the fields whose names
    are known are replaced: ``'{"a": 1}'`` and ``'{1,2}'`` stay what they are.

    Args:
        text: with fields.
        keywords: the values.
        what: for the error: which text.

    Raises:
        TaskError: a name in braces is no keyword.
    """
    if "{" not in text and "}" not in text:
        return text
    try:
        return text.format(**keywords)
    except (LookupError, ValueError, AttributeError, TypeError):
        return _leniently(text, keywords, what)


def fields(text: str) -> list[str]:
    """The names of the fields of a text, in their order, each once."""
    try:
        parsed = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError:
        parsed = [""]
    found: Iterator[str] = (re.split(r"[.\[]", name, maxsplit=1)[0] for name in parsed)
    names = list(dict.fromkeys(found))
    if all(re.fullmatch(_NAME, name) for name in names):
        return names
    return list(dict.fromkeys(match["name"] for match in find_fields(text)))


def find_fields(text: str) -> Iterator[re.Match[str]]:
    """What looks like a field, with the groups name and rest; not ``{{name}}``."""
    return (match for match in _FIELD.finditer(text) if not _doubled(match))


def replace_fields(text: str, by: Callable[[re.Match[str]], str]) -> str:
    """Put something else in their place."""
    return _FIELD.sub(lambda match: match[0] if _doubled(match) else by(match), text)


def _doubled(match: re.Match[str]) -> bool:
    return match.string[match.start() - 1 : match.start()] == "{" and match.string.startswith("}", match.end())


def _leniently(text: str, keywords: Mapping[str, Any], what: str) -> str:
    def replaced(match: re.Match[str]) -> str:
        if match["name"] in keywords:
            try:
                return match[0].format(**keywords)
            except (LookupError, ValueError, AttributeError, TypeError) as error:
                raise TaskError(f"{what}: {match[0]} cannot be formatted: {type(error).__name__}: {error}") from error
        if match["rest"]:
            return match[0]
        known = ", ".join(sorted(keywords)) or "none"
        raise TaskError(
            f"{what}: there is no format keyword {match['name']!r} (there are: {known}); give it with "
            f"update_format_kws({match['name']}=…), or write {{{{{match['name']}}}}} for the braces themselves"
        )

    return _ESCAPED.sub(r"{\1}", replace_fields(text, replaced))
