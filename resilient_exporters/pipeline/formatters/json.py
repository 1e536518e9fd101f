"""JSON lines, or one JSON list."""

from __future__ import annotations

import json
from typing import Any

from resilient_exporters.exporters.lines import json_line
from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.option import Option

__all__ = ["JsonExportFormatter"]


class JsonExportFormatter(BaseFormatter):
    """JSON: a line for each record, or a list of them.

    Times are ISO 8601, a Decimal and a UUID are texts, bytes are base64, a key that is no text is its text, nan and the
    infinities are null (JSON has no word for them); integers have all their digits.
    """

    supported_options = {
        "pretty_print": Option(type=bool, default=False, help="Indented by 2, keys sorted."),
        "jsonlines": Option(type=bool, default=True, help="A line for each record; False: one list."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pretty: bool = self.read_option("pretty_print")
        self.jsonlines: bool = self.read_option("jsonlines")
        self.file_extension = "jl" if self.jsonlines else "json"
        self.separator = b"" if self.jsonlines else b",\n"

    def format(self, item: dict[str, Any]) -> bytes:
        """One record; as a line it has its newline."""
        line = json_line(item)
        if self._pretty:
            ascii_only = b"\\ud" in line  # half of a surrogate pair has no other form
            value = json.loads(line)
            line = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=ascii_only).encode() + b"\n"
        return line if self.jsonlines else line[:-1]

    def header(self) -> bytes:
        """The beginning of a list."""
        return b"" if self.jsonlines else b"["

    def footer(self) -> bytes:
        """The end of a list."""
        return b"" if self.jsonlines else b"\n]"
