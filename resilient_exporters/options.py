"""The options of an exporter: their defaults, and what is wrong with those that cannot be."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.errors import InvalidConfigError

__all__ = [
    "DEFAULTS", "check_concurrency", "check_listeners", "check_name", "check_type", "unknown_options", "window_of",
]  # fmt: skip

DEFAULTS: dict[str, Any] = {
    name: parameter.default for name, parameter in inspect.signature(Settings.check).parameters.items()
}
"""Of the queue's and the delivery's options."""


def unknown_options(cls: type, options: Mapping[str, Any]) -> InvalidConfigError:
    """What is said of options that a class does not have."""
    known = [name for each in cls.__mro__ for name in inspect.signature(each).parameters]
    first = min(options)
    near = difflib.get_close_matches(first, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return InvalidConfigError(None, f"{cls.__name__} has no option {', '.join(sorted(options))}{hint}")


def window_of(use_memory: object, loss_window: Any) -> Any:
    """The ``loss_window`` that the original's ``use_memory`` stands for."""
    if use_memory is None:
        return loss_window
    if not isinstance(use_memory, bool):
        raise InvalidConfigError(None, f"use_memory={use_memory!r} is no bool: give True or False")
    if use_memory and loss_window not in (None, DEFAULTS["loss_window"]):
        raise InvalidConfigError(None, "use_memory=True is loss_window=None: give one of them")
    return None if use_memory else loss_window


def check_type(value: Any, kind: type, option: str, right: str) -> Any:
    """An option that is an object of a kind, or None."""
    if value is not None and not isinstance(value, kind):
        raise InvalidConfigError(None, f"{option}={value!r} is not {right}")
    return value


def check_concurrency(concurrency: object, cls: Any) -> int | str:
    """The ``concurrency`` given, or that of the class."""
    value = cls.concurrency if concurrency is None else concurrency
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InvalidConfigError(None, f'concurrency={value!r}: give a number from 1 on, or "auto"')
    return value


def check_listeners(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    """The listeners given."""
    if isinstance(listeners, Listener) or not isinstance(listeners, Iterable):
        raise InvalidConfigError(None, f"listeners={listeners!r}: give a list of Listener objects")
    found = tuple(listeners)
    for one in found:
        if not isinstance(one, Listener):
            raise InvalidConfigError(None, f"listeners: {one!r} is no Listener: subclass it")
    return found


def check_name(name: object, kind: str, address: str) -> str:
    """The name given, or one made of what it is and where."""
    if name is None:
        return f"{kind}:{address}" if address else kind
    if not isinstance(name, str) or not name.strip():
        raise InvalidConfigError(None, f"name={name!r} is no name: give a text")
    return name
