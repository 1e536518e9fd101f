"""Result codes: 0, or the code of the step that failed plus a sub-code of 1 to 99."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ERR_EXPORT_EVENTS",
    "ERR_LOAD",
    "ERR_MULTIPLE",
    "ERR_NAMES",
    "ERR_NONE",
    "ERR_PREPARE",
    "ERR_SEND",
    "ERR_UNEXPECTED",
    "error_text",
]

ERR_NONE: Final = 0
ERR_UNEXPECTED: Final = 1
"""Something raised outside of the steps: a constructor, or a ``run`` of the class's own."""
ERR_PREPARE: Final = 100
ERR_EXPORT_EVENTS: Final = 200
ERR_SEND: Final = 300
ERR_LOAD: Final = 400
"""The entry could not be read from the backlog, so that there was no job to run."""
ERR_MULTIPLE: Final = 999
"""More than one job of a slot failed."""

ERR_NAMES: Final[dict[int, str]] = {
    ERR_NONE: "no error",
    ERR_UNEXPECTED: "unexpected error",
    ERR_PREPARE: "prepare failed",
    ERR_EXPORT_EVENTS: "export_events failed",
    ERR_SEND: "send_data failed",
    ERR_LOAD: "entry unreadable",
    ERR_MULTIPLE: "several jobs failed",
}


def error_text(code: int, names: dict[int, str] = ERR_NAMES) -> str:
    """What a code means, sub-coded ones too: "send_data failed (sub-code 2)". Any number has a text."""
    if code in names:
        return names[code]
    step, subcode = code - code % 100, code % 100
    if step in names and step:
        return f"{names[step]} (sub-code {subcode})"
    return f"error {code}"
