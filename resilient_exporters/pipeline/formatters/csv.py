"""Comma-separated values."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from resilient_exporters.exporters.lines import json_line
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.option import ListOf, Option

__all__ = ["CSVExportFormatter"]

_AS_IT_IS: Final = frozenset({str, int, float, bool, Decimal})
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class CSVExportFormatter(BaseFormatter):
    """CSV with a column for each field; other keys of a record are left out, missing ones and None are empty.

    Everything that is no number is quoted, lines end with CRLF, the text is UTF-8. A nested value is its JSON text, a
    time is ISO 8601, bytes are base64.

    A text that begins with = + - @ is a formula to a spreadsheet. It is written as it is, so that readers get what was
    sent; where files are opened in a spreadsheet, ``escape_formulas`` puts an apostrophe before it.

    Raises:
        ConfigurationError: there are neither fields nor a schema; or the delimiter is not one character.
    """

    file_extension = "csv"
    supported_options = {
        "show_titles": Option(type=bool, default=True, help="First a line with the names of the fields."),
        "fields": Option(type=ListOf(str), default=[], help="Names of the fields, in their order."),
        "schema": Option(
            type=dict,
            default={},
            help="JSON schema whose properties, sorted by name, are the fields if none are given.",
        ),
        "delimiter": Option(type=str, default=",", help="Stands between two values."),
        "escape_formulas": Option(
            type=bool, default=False, help="An apostrophe before texts that a spreadsheet would compute."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        schema = self.read_option("schema")
        properties = schema.get("properties", {})
        if not isinstance(properties, Mapping):
            raise ConfigurationError(None, f"schema: properties={properties!r:.60} is no mapping")
        self.fields: list[str] = self.read_option("fields") or sorted(properties)
        if not self.fields:
            raise ConfigurationError(None, "CSVExportFormatter: give fields, or a schema with properties")
        delimiter = self.read_option("delimiter")
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise ConfigurationError(None, f'delimiter={delimiter!r}: give one character, such as "," or ";"')
        self._escape: bool = self.read_option("escape_formulas")
        self._show_titles: bool = self.read_option("show_titles")
        self._row = csv.writer(_Echo(), delimiter=delimiter, quoting=csv.QUOTE_NONNUMERIC).writerow

    def format(self, item: dict[str, Any]) -> bytes:
        """One line, with its end."""
        get = item.get
        cells = [value if type(value := get(field)) in _AS_IT_IS else _cell(value) for field in self.fields]
        if self._escape:
            cells = [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in cells]
        return str(self._row(cells)).encode("utf-8", "backslashreplace")

    def header(self) -> bytes:
        """The titles."""
        return str(self._row(self.fields)).encode() if self._show_titles else b""


class _Echo:
    """A file for ``csv.writer`` that gives back each row."""

    def write(self, row: str) -> str:
        return row


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str):  # of a subclass, as are the numbers
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    text = json_line(value).decode().removesuffix("\n")
    return str(json.loads(text)) if text.startswith('"') else text
