"""XML."""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any, Final

from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.option import ListOf, Option

__all__ = ["XMLExportFormatter"]

_START: Final = (
    "A-Z_a-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c-\u200d\u2070-\u218f\u2c00-\u2fef"
    "\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff"
)
# Names by XML 1.0 (section 2.3), without the colon: that would stand behind a name space that there is not.
_NAME: Final = re.compile(f"[{_START}][{_START}.0-9\u00b7\u0300-\u036f\u203f-\u2040-]*")
# Section 2.2: what no document can hold, however it is written.
_NO_CHARACTER: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL: Final = re.compile('[&<>"\r\n\t]')
_ESCAPES: Final = {
    "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;",
}  # fmt: skip
_TEXT: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})


class XMLExportFormatter(BaseFormatter):
    """XML: an element for each record, and in it one for each key.

    A key that is no name in XML is ``<key name="…">``. A list holds an element ``item`` for each value, None is empty,
    times are ISO 8601, bytes are base64. A character that XML cannot hold becomes U+FFFD; the figure
    ``replaced_characters`` counts them.

    Raises:
        ConfigurationError: item_name or root_name is no name in XML.
    """

    file_extension = "xml"
    separator = b"\n"
    supported_options = {
        "attr_type": Option(type=bool, default=True, help="An attribute type says what each value is."),
        "fields_order": Option(type=ListOf(str), default=[], help="Keys that come first, in this order."),
        "item_name": Option(type=str, default="item", help="Name of the element of a record."),
        "root_name": Option(type=str, default="root", help="Name of the element around all records."),
        "xml_header": Option(
            type=str, default='<?xml version="1.0" encoding="UTF-8"?>', help="What the file begins with."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._typed: bool = self.read_option("attr_type")
        self._first: list[str] = self.read_option("fields_order")
        self._item, self._root = self._name("item_name"), self._name("root_name")
        self._replaced = 0
        self._tags: dict[tuple[str, str], tuple[str, str]] = {}

    def _name(self, option: str) -> str:
        name = self.read_option(option)
        if not _NAME.fullmatch(name):
            raise ConfigurationError(None, f"{option}={name!r}: that is no name in XML; give letters, digits, - _ .")
        return str(name)

    def header(self) -> bytes:
        """The declaration, and the beginning of the root."""
        return f"{self.read_option('xml_header')}\n<{self._root}>\n".encode()

    def footer(self) -> bytes:
        """The end of the root."""
        return f"\n</{self._root}>\n".encode()

    def format(self, item: dict[str, Any]) -> bytes:
        """One record."""
        replaced = self._replaced
        text = f"<{self._item}>{''.join(self._elements(self._ordered(item)))}</{self._item}>"
        if self._replaced != replaced:
            self.set_metadata("replaced_characters", self._replaced)
        return text.encode()

    def _ordered(self, item: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
        if not self._first:
            yield from item.items()
            return
        for key in self._first:
            if key in item:
                yield key, item[key]
        for key, value in item.items():
            if key not in self._first:
                yield key, value

    def _elements(self, pairs: Any) -> Iterator[str]:
        for key, value in pairs:
            kind, text = self._content(value)
            begin, end = self._tag(str(key), kind)
            yield f"{begin}{text}{end}"

    def _tag(self, key: str, kind: str) -> tuple[str, str]:
        found = self._tags.get((key, kind))
        if found is None:
            name, more = (key, "") if _NAME.fullmatch(key) else ("key", f' name="{self._attribute(key)}"')
            more += f' type="{kind}"' if self._typed else ""
            found = f"<{name}{more}>", f"</{name}>"
            if len(self._tags) < 10_000:  # records may have keys without end
                self._tags[key, kind] = found
        return found

    def _content(self, value: Any) -> tuple[str, str]:
        if isinstance(value, str):
            return "str", self._text(value)
        if value is None:
            return "null", ""
        if isinstance(value, bool):
            return "bool", "true" if value else "false"
        if isinstance(value, (int, float)):
            return ("int" if isinstance(value, int) else "float"), str(value)
        if isinstance(value, Mapping):
            return "dict", "".join(self._elements(value.items()))
        if isinstance(value, (list, tuple, AbstractSet)):
            return "list", "".join(self._elements(("item", one) for one in value))
        if isinstance(value, (dt.date, dt.time)):
            return type(value).__name__, value.isoformat()
        if isinstance(value, Decimal):
            return "number", str(value)
        if isinstance(value, (bytes, bytearray)):
            return "base64", base64.b64encode(value).decode()
        if hasattr(value, "tolist"):  # numpy
            return self._content(value.tolist())
        return "str", self._text(str(value))

    def _text(self, text: str) -> str:
        return self._valid(text).translate(_TEXT)

    def _attribute(self, text: str) -> str:
        return _SPECIAL.sub(lambda match: _ESCAPES[match.group()], self._valid(text))

    def _valid(self, text: str) -> str:
        if _NO_CHARACTER.search(text) is None:
            return text
        text, count = _NO_CHARACTER.subn("\ufffd", text)
        self._replaced += count
        return text
