"""JSON lines, or one JSON list."""

from __future__ import annotations

import json
from typing import Any

from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.option import Option

__all__ = ["JsonExportFormatter"]


class JsonExportFormatter(BaseFormatter):
    """JSON: a line for each record, or a list of them. Dates and times are in ISO 8601."""

    supported_options = {
        "pretty_print": Option(type=bool, default=False, help="Indented by 2, keys sorted."),
        "jsonlines": Option(type=bool, default=True, help="A line for each record; False: one list."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pretty = self.read_option("pretty_print")
        self.jsonlines: bool = self.read_option("jsonlines")
        self.file_extension = "jl" if self.jsonlines else "json"
        self.separator = b"\n" if self.jsonlines else b",\n"
        self._encode = json.JSONEncoder(
            indent=2 if pretty else None, sort_keys=pretty, ensure_ascii=False, default=_text
        ).encode

    def format(self, item: dict[str, Any]) -> bytes:
        """One record."""
        return self._encode(item).encode()

    def header(self) -> bytes:
        """The beginning of a list."""
        return b"" if self.jsonlines else b"["

    def footer(self) -> bytes:
        """The end of a list, or of the last line."""
        return b"\n" if self.jsonlines else b"]"


def _text(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
