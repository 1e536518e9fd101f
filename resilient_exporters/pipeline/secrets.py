"""Secrets: how they are kept out of states, errors and logs."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

__all__ = ["Curtain", "has_password", "is_reference", "is_secret_name", "lost", "scrubbed", "texts"]

_NAMES: Final = re.compile(
    r"password|passwd|passphrase|secret|token|credential|api_?key|access_key|account_key|private_key|(http|basic)_auth"
)
_URL: Final = re.compile(r"(?P<begin>://[^/:\s]*:)(?P<password>[^/\s]+)(?=@)")
_SHORT: Final = 4
_HIDDEN: Final = "…"


def is_secret_name(name: object) -> bool:
    """Whether a key or an option of this name holds a secret, as far as its name says."""
    return isinstance(name, str) and _NAMES.search(name.lower()) is not None


def is_reference(value: object) -> bool:
    """Whether it says only where a value is to be taken from: ``{"env": "NAME"}``."""
    return isinstance(value, Mapping) and set(value) == {"env"} and isinstance(value["env"], str)


def has_password(value: object) -> bool:
    """Whether it is a URL with a password."""
    return isinstance(value, str) and _URL.search(value) is not None


def scrubbed(value: Any, name: str) -> Any:
    """A value without what is secret in it: ``{"secret": name}`` stands there.

    Args:
        value: of an option that is no secret as a whole.
        name: of the option.
    """
    if is_reference(value):
        return value
    if has_password(value):
        return {"secret": name}
    if isinstance(value, Mapping):
        return {
            key: {"secret": f"{name}.{key}"}
            if is_secret_name(key) and isinstance(one, (str, bytes)) and one
            else scrubbed(one, f"{name}.{key}")
            for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [scrubbed(one, f"{name}.{number}") for number, one in enumerate(value)]
    return value


def lost(value: Any, name: str) -> str | None:
    """The first secret in a value that was not kept, by its name; None: it is whole."""
    if isinstance(value, Mapping):
        if set(value) == {"secret"}:
            label = value["secret"]
            return label if isinstance(label, str) and (label == name or label.startswith(f"{name}.")) else None
        return next((found for one in value.values() if (found := lost(one, name))), None)
    if isinstance(value, (list, tuple)):
        return next((found for one in value if (found := lost(one, name))), None)
    return None


def texts(value: Any, *, secret: bool) -> Iterator[str]:
    """The secret texts in a value: all of them if the whole is ``secret``, else those that look like secrets."""
    if isinstance(value, str):
        if secret:
            yield value
        for found in _URL.finditer(value):
            yield found["password"]
            yield unquote(found["password"])
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from texts(one, secret=secret or is_secret_name(key))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from texts(one, secret=secret)


class Curtain(logging.Filter):
    """Hides secrets in texts and log lines.

    Args:
        secrets: texts; those shorter than four characters are left, because they would hide half of every line.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = sorted({text for text in secrets if len(text) >= _SHORT}, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """The text without them, and without passwords in URLs."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _URL.sub(rf"\g<begin>{_HIDDEN}", text)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every line pass, without secrets."""
        text = record.getMessage()
        hidden = self.hide(text)
        if hidden != text:
            record.msg, record.args = hidden, ()
        if record.exc_info:
            record.exc_text = self.hide("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return True
