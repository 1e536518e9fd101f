"""Records on the console."""

from __future__ import annotations

import sys
from typing import Any, Final

from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.formatters.json import JsonExportFormatter
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.writers.base import OUTDATED, BaseWriter

__all__ = ["ConsoleWriter"]

_MOST: Final = 1 << 20  # bytes of a batch that are held back


class ConsoleWriter(BaseWriter):
    """Prints records to standard output, as the formatter writes them; a valid document also with no record.

    A batch is printed just before it is committed. What is printed cannot be taken back: a kill between the two prints
    that batch again at the resume, and so does a failure in a batch of more than 1 MB.
    """

    prints = True
    groups = False
    supported_options = {
        **OUTDATED,
        "pretty_print": Option(type=bool, default=False, help="JSON indented by 2, with sorted keys."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held = bytearray()
        self._begun = self._some = False
        self._pretty: bool = self.read_option("pretty_print")
        self._form: BaseFormatter | None = None

    def write_record(self, record: BaseRecord) -> None:
        """Hold it until the batch is whole."""
        form = self._formatter()
        data = self.sound(form.format, record)
        if data is None:
            return
        if self._some:
            self._held += form.separator
        self._some = True
        self._held += data
        if len(self._held) >= _MOST:
            self._print()

    def _formatter(self) -> BaseFormatter:
        if self._form is None:
            given = self.formatter or JsonExportFormatter()
            if given.whole:
                raise ConfigurationError(
                    None, f"ConsoleWriter cannot print what {type(given).__name__} writes: take a text format"
                )
            if self._pretty and isinstance(given, JsonExportFormatter):
                given = JsonExportFormatter(pretty_print=True, jsonlines=given.jsonlines)
            self._form = given
        return self._form

    def _print(self) -> None:
        if not self._begun:
            self._begun = True
            self._held[:0] = self._formatter().header()
        data, self._held = bytes(self._held), bytearray()
        if not data:
            return
        out: Any = sys.stdout
        if out is None:
            raise PipelineError(None, "ConsoleWriter: there is no standard output to print to")
        binary = getattr(out, "buffer", None)
        if binary is None:
            out.write(data.decode())
        else:
            out.flush()
            binary.write(data)
            binary.flush()

    def prepare(self) -> None:
        """Print the batch."""
        self._print()

    def get_state(self) -> Any:
        """How far the document is."""
        return {**super().get_state(), "begun": self._begun, "some": self._some}

    def set_state(self, state: Any) -> None:
        """Go on with the document."""
        super().set_state(state)
        self._begun, self._some = state["begun"], state["some"]

    def finish_writing(self) -> None:
        """Print the end of the document."""
        form = self._formatter()
        footer = form.footer()
        if self._some or footer.strip():
            self._held += footer
        self._print()
