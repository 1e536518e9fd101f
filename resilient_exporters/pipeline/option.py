"""The options of a module of a pipeline: one table per class, merged along its bases."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.secrets import is_reference, lost, scrubbed

__all__ = ["REQUIRED", "ListOf", "Option", "check_options", "merged", "named", "redacted", "resolved", "unsupported"]


_BOOLEANS: Final = {
    "1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()
"""The default of an option that has none."""


class ListOf:
    """The type of a list whose elements have one type: a single value, a tuple and a JSON list become that list."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.__name__ = f"list of {kind.__name__}"

    def coerce(self, value: object) -> Any:
        """The list, or the value itself if it cannot be made one."""
        if isinstance(value, (list, tuple)) and all(_fits(one, self.kind) for one in value):
            return list(value)
        return value

    def holds(self, value: object) -> bool:
        """Whether it is such a list."""
        return isinstance(value, list) and all(_fits(one, self.kind) for one in value)


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one option.

    Args:
        type: a class, a ``ListOf``, or a tuple of these. A plain ``dict`` takes any mapping; an ``int`` is a ``float``.
        default: REQUIRED (the default) where there must be one given, or an ``env_fallback`` in the environment.
        env_fallback: environment variable that is read where the option is not given.
        help: one sentence.
        secret: never shown in a log, an error or a state.
        choices: the only values there are; empty: any of the type.
        check: called with the value; raises ``ValueError`` with what would be right.
    """

    type: Any
    default: Any = REQUIRED
    env_fallback: str | None = None
    help: str = ""
    secret: bool = False
    choices: tuple[Any, ...] = ()
    check: Callable[[Any], Any] | None = None

    @classmethod
    def of(cls, value: Any, owner: str, name: str) -> Option:
        """An option, or the plain dict that the old system wrote.

        Raises:
            ConfigurationError: neither.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping) or "type" not in value or set(value) - set(cls.__struct_fields__):
            raise ConfigurationError(
                None,
                f"{owner}.supported_options[{name!r}]={value!r}: give an Option, or a dict with type and any of "
                f"{', '.join(cls.__struct_fields__[1:])}",
            )
        return cls(**value)

    @property
    def required(self) -> bool:
        """Whether it must be given: there is neither a default nor a place in the environment."""
        return self.default is REQUIRED and self.env_fallback is None

    @property
    def types(self) -> tuple[Any, ...]:
        """Its types."""
        return self.type if isinstance(self.type, tuple) else (self.type,)

    @property
    def type_names(self) -> str:
        """Its types as people read them."""
        return " or ".join(kind.__name__ for kind in self.types)

    def converted(self, value: Any, name: str) -> Any:
        """The value as the option has it.

        Raises:
            ConfigurationError: it cannot be; with what would be right. The value of a secret is not shown.
        """
        if value is None and self.default is None:
            return None
        for kind in self.types:
            if isinstance(kind, ListOf):
                value = kind.coerce(value)
        if not any(_fits(value, kind) for kind in self.types):
            found = type(value).__name__ if self.secret else f"{type(value).__name__} ({scrubbed(value, name)!r:.60})"
            raise ConfigurationError(None, f"Wrong type: found {found}, expected {self.type_names}")
        if self.choices and value not in self.choices:
            near = difflib.get_close_matches(str(value), [str(one) for one in self.choices], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigurationError(None, f"{name}={value!r:.60} is none of {', '.join(map(str, self.choices))}{hint}")
        if self.check is not None:
            try:
                self.check(value)
            except InvalidConfigError:
                raise
            except (ValueError, TypeError) as error:
                shown = "" if self.secret else f"={scrubbed(value, name)!r:.60}"
                raise ConfigurationError(None, f"{name}{shown}: {error}") from error
        return value

    def value(self, given: Mapping[str, Any], name: str) -> Any:
        """The value given, or that of the environment, or the default.

        Raises:
            ConfigurationError: there is none, or it cannot be.
        """
        if name in given:
            return self.converted(resolved(given[name], name, self.types), name)
        if self.env_fallback is not None and self.env_fallback in os.environ:
            return self.converted(_from_text(os.environ[self.env_fallback], self.types), name)
        if self.default is REQUIRED:
            where = f" (or set {self.env_fallback})" if self.env_fallback else ""
            raise ConfigurationError(None, f"Option {name} is missing{where}")
        return copy.copy(self.default) if isinstance(self.default, (list, dict)) else self.default


def resolved(value: Any, name: str, kinds: Iterable[Any] = (str,)) -> Any:
    """What ``{"env": "NAME"}`` stands for; any other value itself.

    Raises:
        ConfigurationError: there is no such variable; or there is a secret in it that was not kept with a job.
    """
    if is_reference(value):
        variable = value["env"]
        if variable not in os.environ:
            raise ConfigurationError(None, f"Option {name} is missing: it is to be taken from {variable}, set that")
        return _from_text(os.environ[variable], kinds)
    secret = lost(value, name)
    if secret is not None:
        raise ConfigurationError(
            None, f"Option {secret} is a secret, and not kept with the job: give the configuration again"
        )
    return value


def merged(cls: type, own: Mapping[str, Any]) -> dict[str, Option]:
    """The table of a class: those of its bases, and its own over them."""
    found: dict[str, Option] = {}
    for base in reversed(cls.__mro__[1:]):
        found.update(base.__dict__.get("supported_options", {}))
    found.update({name: Option.of(value, cls.__name__, name) for name, value in own.items()})
    return found


def check_options(table: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is wrong with options, by name; the names that there are not under ``unsupported_options``."""
    errors: dict[str, Any] = {}
    for name, option in table.items():
        try:
            option.value(given, name)
        except InvalidConfigError as error:
            errors[name] = error.content
    unknown = unsupported(table, given)
    if unknown:
        errors["unsupported_options"] = unknown
    return errors


def unsupported(table: Mapping[str, Option], given: Iterable[str]) -> list[str]:
    """The names that the table does not have, with those that were meant."""
    return [named(name, table) for name in given if name not in table]


def named(name: object, known: Iterable[str]) -> str:
    """A name that is unknown, and the known one that may have been meant."""
    near = difflib.get_close_matches(str(name), list(known), 1)
    return f"{name} (did you mean {near[0]}?)" if near else str(name)


def redacted(table: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they may be shown and kept: in the place of a secret stands where it is to be taken from.

    ``{"env": "NAME"}`` is an environment variable, and can be used as it is; ``{"secret": "option"}`` has to be given
    again.
    """
    shown: dict[str, Any] = {}
    for name, value in given.items():
        option = table.get(name)
        if option is None or not option.secret or value is None or is_reference(value):
            shown[name] = scrubbed(value, name)
        else:
            shown[name] = {"env": option.env_fallback} if option.env_fallback else {"secret": name}
    return shown


def _fits(value: object, kind: Any) -> bool:
    if isinstance(kind, ListOf):
        return kind.holds(value)
    if kind is dict:
        return isinstance(value, Mapping)
    if kind is object:
        return True
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _from_text(text: str, kinds: Iterable[Any]) -> Any:
    """A text of the environment as one of the types."""
    for kind in kinds:
        if kind is str:
            return text
        if kind is bool and text.strip().lower() in _BOOLEANS:
            return _BOOLEANS[text.strip().lower()]
        if isinstance(kind, ListOf) or kind in (dict, list, int, float, bool):
            try:
                return msgspec.json.decode(text)
            except msgspec.DecodeError:
                if isinstance(kind, ListOf) and kind.kind is str:
                    return [part.strip() for part in text.split(",")]
    return text
