"""How files are named: the option ``filebase``, its numbers and groups."""

from __future__ import annotations

import datetime as dt
import hashlib
import posixpath
import re
import string
from collections.abc import Sequence
from typing import Any, Final

from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError

__all__ = ["Filebase", "FilebaseKeyError", "Names"]

_SAFE: Final = re.compile(r"[\w. -]+")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_GROUP: Final = re.compile(r"groups\[(\d+)\]")
_LONGEST: Final = 100  # bytes of a group's text in a name; file systems take 255 for the whole
_TOKEN: Final = 7


class FilebaseKeyError(ConfigurationError, KeyError):
    """A placeholder that does not belong where it stands."""

    def __str__(self) -> str:
        return self.content


class Filebase:
    """A template of names, with the date and time of the start filled in.

    ``%Y`` and the like are filled in at the start of the run. ``{file_number}`` and ``{groups[N]}`` are for the last
    part of the path, ``{groups[N]}`` also for its directories. Without a placeholder in the last part a number of four
    digits is appended; groups that are named nowhere are appended after a dash.

    Args:
        template: the option.
        now: when the run began; None: the template is filled in already.

    Raises:
        FilebaseKeyError: ``{file_number}`` in a directory, or a placeholder that there is not.
        ConfigurationError: braces that do not pair.

    Attributes:
        template: with the date and time.
        directory: all before the last slash.
        prefix: the last part.
        base: the directories before the first that has a placeholder.
    """

    def __init__(self, template: str, now: dt.datetime | None = None) -> None:
        if "\0" in template or _SURROGATE.search(template):
            raise ConfigurationError(None, f"filebase={template!r}: a path holds no NUL, and is text")
        self.template = template if now is None else now.strftime(template)
        self.directory, self.prefix = posixpath.split(self.template)
        in_directory, in_prefix = _fields(self.directory, template), _fields(self.prefix, template)
        if "file_number" in in_directory:
            raise FilebaseKeyError(
                None, f"filebase={template!r}: {{file_number}} belongs after the last slash; directories take "
                "{groups[0]}"
            )  # fmt: skip
        self.has_placeholder = bool(in_prefix)
        self.has_number = "file_number" in in_prefix
        self.names_groups = any(name != "file_number" for name in (*in_directory, *in_prefix))
        parts: list[str] = []
        for part in self.directory.split("/"):
            if "{" in part:
                break
            parts.append(part)
        self.base = "/".join(parts) or ("/" if self.directory.startswith("/") else "")

    def name(self, groups: Sequence[str], number: int, salt: str) -> str:
        """The path of a file, without its extension.

        Args:
            groups: as text.
            number: of the file.
            salt: of the run, for the tokens that stand for unsafe texts.

        Raises:
            PipelineError: the template names more groups than there are.
        """
        safe = [_file_text(text, salt) for text in groups]
        try:
            directory = self.directory.format(groups=[_directory_text(text, salt) for text in groups])
            prefix = self.prefix.format(groups=safe, file_number=number)
        except IndexError as error:
            raise PipelineError(
                None, f"filebase={self.template!r} names more groups than a record has: {len(groups)}"
            ) from error
        if not self.has_placeholder:
            prefix += f"{number:04d}"
        if groups and not self.names_groups:
            prefix += f"-{''.join(safe)}"
        return posixpath.join(directory, prefix)


class Names:
    """The names of one run: none is given twice.

    Args:
        filebase: the template.
        start: the first number of each group.
        salt: of the run.
    """

    def __init__(self, filebase: Filebase, start: int, salt: str) -> None:
        self.filebase = filebase
        self._start = start
        self._salt = salt
        self._numbers: dict[tuple[str, ...], int] = {}
        self._again: dict[str, int] = {}
        self._used: set[str] = set()

    def go_on(self, filebase: Filebase, salt: str) -> None:
        """Take template and salt of the run that is resumed."""
        self.filebase, self._salt = filebase, salt

    def next(self, key: tuple[str, ...]) -> str:
        """The name of the next file of a group, without its extension.

        Where the template has no number and the name is used, a number is appended.
        """
        number = self._numbers.get(key, self._start)
        name = plain = self.filebase.name(key, number, self._salt)
        while name in self._used:
            if self.filebase.has_number or not self.filebase.has_placeholder:
                number += 1
                name = self.filebase.name(key, number, self._salt)
            else:
                again = self._again[plain] = self._again.get(plain, self._start) + 1
                name = f"{plain}-{again:04d}"
        self._numbers[key] = number + 1
        self._used.add(name)
        return name

    def entry(self, key: tuple[str, ...], name: str) -> list[Any]:
        """What is to be kept of a name that was given."""
        return [list(key), self._numbers[key], name]

    def restore(self, entry: Sequence[Any]) -> None:
        """A name that was given before the run was resumed."""
        key, number, name = entry
        self._numbers[tuple(key)] = max(number, self._numbers.get(tuple(key), 0))
        self._used.add(name)


def _fields(template: str, whole: str) -> list[str]:
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ConfigurationError(None, f"filebase={whole!r}: {error}") from error
    for field in fields:
        if field != "file_number" and not _GROUP.fullmatch(field):
            raise FilebaseKeyError(
                None, f"filebase={whole!r}: {{{field}}} is none of {{file_number}}, {{groups[0]}}, {{groups[1]}}, …"
            )
    return fields


def _file_text(text: str, salt: str) -> str:
    return text if _is_safe(text) else _token(text, salt)


def _directory_text(text: str, salt: str) -> str:
    """A group in a directory: may have slashes, as long as each part is a plain name."""
    parts = text.split("/")
    return text if all(map(_is_safe, parts)) else _token(text, salt)


def _is_safe(text: str) -> bool:
    return _SAFE.fullmatch(text) is not None and text.strip(". ") != "" and len(text.encode()) <= _LONGEST


def _token(text: str, salt: str) -> str:
    """Seven characters that nobody can guess from the text, the same ones for the whole run."""
    return hashlib.sha256(f"{salt}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:_TOKEN]
