"""Checks of options that several modules have: what is wrong is said before anything runs."""

from __future__ import annotations

import math

__all__ = ["at_least_one", "host", "natural", "one_line", "port", "seconds"]


def at_least_one(value: int) -> None:
    """A number of things.

    Raises:
        ValueError: below 1.
    """
    if value < 1:
        raise ValueError("give 1 or more")


def natural(value: int) -> None:
    """A number of things, or none.

    Raises:
        ValueError: below 0.
    """
    if value < 0:
        raise ValueError("give 0 or more")


def seconds(value: float) -> None:
    """A time to wait for something.

    Raises:
        ValueError: no time, or no number.
    """
    if not 0 < value < math.inf:
        raise ValueError("give seconds, more than 0")


def port(value: int | None) -> None:
    """A port of TCP.

    Raises:
        ValueError: there is none of this number.
    """
    if value is not None and not 0 < value < 1 << 16:
        raise ValueError("give a port from 1 to 65535")


def one_line(value: str | None) -> None:
    """A name of something.

    Raises:
        ValueError: it is empty, or holds a character that ends lines or texts.
    """
    if value is not None and (not value.strip() or not value.isprintable()):
        raise ValueError("give a name, in one line")


def host(value: str | None) -> None:
    """A host, by name or address.

    Raises:
        ValueError: it is none.
    """
    if value is not None and (not value or not value.isprintable() or set(value) & set(" /?#@")):
        raise ValueError("give the name or the address of a host, without protocol and port")
