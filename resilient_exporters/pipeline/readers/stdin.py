"""Lines that are piped into the program."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from resilient_exporters.pipeline.deserializers import BaseLineDeserializer, JsonLinesDeserializer, Unreadable
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.units import parse_count, parse_seconds

__all__ = ["StdinReader", "line_deserializer"]

_BLOCK: Final = 64 * 1024
_LOOK: Final = 0.1  # seconds between two looks at whether the run is asked to stop


class StdinReader(BaseReader):
    """Reads lines of standard input, to its end; JSON, unless there is another deserializer of lines.

    A batch ends when it is full, or when nothing more came for ``linger`` seconds. Standard input cannot be read again:
    for a resume pipe in the same lines once more, those that were read are left out.

    Args:
        config, metadata: as of every module.
        **options: ``batch_size``, ``linger``.

    Attributes:
        deserializer: makes records of the lines; None: ``JsonLinesDeserializer``.
    """

    supported_options = {
        "batch_size": Option(
            type=int, default=10_000, check=lambda value: parse_count(value, "batch_size"), help="Lines in a batch."
        ),
        "linger": Option(
            type=float, default=1.0, check=lambda value: parse_seconds(value, "linger"),
            help="Seconds to wait for more lines before a batch that is not full ends.",
        ),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deserializer: Any = None
        self._batch_size: int = self.read_option("batch_size")
        self._linger: float = self.read_option("linger")
        self._splitter: Any = None
        self._lines: list[Any] = []  # cut, not given yet
        self._at = 0
        self._skip = 0
        self._ended = False

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The lines that came."""
        deserializer = line_deserializer(self)
        self._splitter = self._splitter or deserializer.splitter()
        left = self._batch_size
        while left > 0 and self._more(some=left < self._batch_size):
            lines, self._lines = self._lines[:left], self._lines[left:]
            left -= len(lines)
            for unit in deserializer.lot(lines).found:
                if isinstance(unit, Unreadable):
                    self.bad_records.add(unit.data, unit.error, part=self.part, where=f"line {self._at + 1}")
                self._at += 1
                if isinstance(unit, dict):
                    yield unit
        self.finished = self._ended and not self._lines

    def _more(self, some: bool) -> bool:
        """Whether there are lines. Waits for them; but where the batch has some already only for ``linger``."""
        until = time.monotonic() + self._linger
        while not self._lines and not self._ended and not self.stopping() and (not some or time.monotonic() < until):
            self._take(min(_LOOK, max(until - time.monotonic(), 0.0)) if some else _LOOK)
        return bool(self._lines)

    def _take(self, timeout: float) -> None:
        try:
            number = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError) as error:
            raise ConfigurationError(None, f"there is no standard input to read from: {error}") from error
        if not select.select([number], [], [], timeout)[0]:
            return
        block = os.read(number, _BLOCK)
        self._ended = not block
        lines = self._splitter.feed(block) if block else self._splitter.end()
        if self._skip:
            lines, self._skip = lines[self._skip :], max(self._skip - len(lines), 0)
        self._lines.extend(lines)

    def get_last_position(self) -> Any:
        """How many lines were read."""
        return {"lines": self._at}

    def set_last_position(self, position: Any) -> None:
        """Leave out as many."""
        self._at = self._skip = position["lines"] if position else 0


def line_deserializer(reader: Any) -> BaseLineDeserializer:
    """What a reader of lines makes records with.

    Raises:
        ConfigurationError: it was given one that reads no lines.
    """
    given = reader.deserializer
    if given is None or isinstance(given, BaseLineDeserializer):
        return given or JsonLinesDeserializer()
    raise ConfigurationError(
        None,
        f"{type(reader).__name__} reads lines: deserializer={type(given).__name__} does not; give one of lines",
    )
