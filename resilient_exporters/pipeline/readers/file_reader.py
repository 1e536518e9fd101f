"""Files of this machine."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from resilient_exporters.pipeline.errors import ConfigurationError, UnreadableStreamError
from resilient_exporters.pipeline.option import Option, named
from resilient_exporters.pipeline.readers.stream import BaseStreamReader

__all__ = ["FSReader"]

_KEYS = ("dir", "dir_pointer", "pattern", "include_dot_files")


def _each(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _check_input(given: Any) -> None:
    if not _each(given):
        raise ConfigurationError(None, "input: the list is empty: give a path at least")
    for one in _each(given):
        _check_one(one)


def _check_one(given: Any) -> None:
    if isinstance(given, str):
        _check_path(given, "input")
        return
    if not isinstance(given, Mapping):
        raise ConfigurationError(None, f"input: {given!r:.60} is neither a path nor a mapping with dir or dir_pointer")
    unknown = [named(key, _KEYS) for key in given if key not in _KEYS]
    if unknown:
        raise ConfigurationError(None, f"input: there is no {', '.join(unknown)}; there are {', '.join(_KEYS)}")
    if ("dir" in given) == ("dir_pointer" in given):
        raise ConfigurationError(None, "input: give dir or dir_pointer, one of them")
    for key, kind in (("dir", str), ("dir_pointer", str), ("pattern", (str, type(None))), ("include_dot_files", bool)):
        if key in given and not isinstance(given[key], kind):
            raise ConfigurationError(None, f"input: {key}={given[key]!r:.60} cannot be; give {_RIGHT[key]}")
        if kind is str and key in given:
            _check_path(given[key], f"input: {key}")
    check_pattern(given.get("pattern"), "input: pattern")


_RIGHT = {
    "dir": "a path", "dir_pointer": "a path", "pattern": "a regular expression", "include_dot_files": "true or false",
}  # fmt: skip


def _check_path(path: str, option: str) -> None:
    try:
        whole = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        whole = False
    if not whole:
        raise ConfigurationError(None, f"{option}={path!r:.60}: no file of this system can have such a name")


def check_pattern(pattern: str | None, option: str = "pattern") -> None:
    """Whether it is a regular expression.

    Raises:
        ConfigurationError: it is not.
    """
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ConfigurationError(None, f"{option}={pattern!r} is no regular expression: {error}") from error


class FSReader(BaseStreamReader):
    """Reads files, in the order of their names.

    ``input`` is a file or a directory; or a mapping with ``dir``, a directory, or ``dir_pointer``, a file that holds
    the path of one, and with ``pattern``, a regular expression that is searched in the paths, and
    ``include_dot_files``; or a list of these. A directory is read with all below it. Files and directories whose
    names begin with a dot are left out. A file that is named twice is read once.

    Args:
        config, metadata: as of every module.
        **options: ``input``, ``batch_size``.
    """

    supported_options = {
        "input": Option(
            type=(str, dict, list), default={"dir": ""}, check=_check_input,
            help="File, directory, a mapping with dir or dir_pointer, pattern, include_dot_files; or a list of these.",
        ),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pointed: dict[str, str] = {}

    def get_read_streams(self) -> Iterator[str]:
        """Paths of the files."""
        for one in _each(self.read_option("input")):
            if isinstance(one, Mapping):
                yield from self._below(one)
            elif Path(one).is_dir():
                yield from self._below({"dir": one})
            else:
                yield str(Path(one))  # as a directory names it: ./a and a are one file

    def _below(self, given: Mapping[str, Any]) -> list[str]:
        pointer = given.get("dir_pointer")
        if pointer is not None and pointer not in self._pointed:
            self._pointed[pointer] = _directory_in(pointer)
        top = given["dir"] if pointer is None else self._pointed[pointer]
        pattern, dots = re.compile(given.get("pattern") or ""), given.get("include_dot_files", False)
        if not top:
            raise UnreadableStreamError(None, 'input: no directory is given; for the working directory give "."')
        if not Path(top).is_dir():
            raise UnreadableStreamError(None, f"input: there is no directory {top!r}")
        found: list[str] = []
        for directory, directories, files in os.walk(top, onerror=_raise):
            directories[:] = [name for name in directories if dots or not name.startswith(".")]
            paths = (str(Path(directory, name)) for name in files if dots or not name.startswith("."))
            found.extend(path for path in paths if pattern.search(path) and _is_file(path))
        if not found:
            self.logger.warning("no file in %s%s", top, f" with {pattern.pattern!r}" if pattern.pattern else "")
        return sorted(found)

    def open_stream(self, stream: str) -> BinaryIO:
        """A file."""
        return Path(stream).open("rb", buffering=0)

    def get_state(self) -> Any:
        """What pointers named: tomorrow it may be another directory."""
        return dict(self._pointed) or None

    def set_state(self, state: Any) -> None:
        """Read these directories."""
        self._pointed = dict(state)

    def stream_size(self, stream: str) -> int:
        """Of the file, in bytes."""
        return Path(stream).stat().st_size


def _is_file(path: str) -> bool:
    """Whether it can be read to an end. What cannot be looked at is left to be found out, and said, by opening it."""
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except OSError:
        return True


def _raise(error: OSError) -> None:
    raise error


def _directory_in(path: str) -> str:
    try:
        found = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UnreadableStreamError(None, f"dir_pointer={path!r}: {error}") from error
    if not found:
        raise UnreadableStreamError(None, f"dir_pointer={path!r}: the file is empty: a directory's path belongs in it")
    return found
