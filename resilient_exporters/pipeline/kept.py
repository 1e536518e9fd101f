"""The configuration as it is kept with a job: without secrets, and compared at a resume."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from resilient_exporters.errors import ResilientExporterException
from resilient_exporters.exporter import Exporter
from resilient_exporters.pipeline.catalogue import find
from resilient_exporters.pipeline.errors import StateError
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.option import Option, redacted
from resilient_exporters.pipeline.secrets import is_secret_name

__all__ = ["compare", "described", "stored"]

_OPTIONS: Final = "exporter_options"
_FREE: Final = {_OPTIONS, "persistence", "stats_manager"}


def stored(configuration: Mapping[str, Any], families: Mapping[str, str]) -> dict[str, Any]:
    """A configuration as it is kept: in the place of secrets stands where they come from.

    Args:
        configuration: as given.
        families: section to family.
    """
    kept: dict[str, Any] = {}
    for section, given in configuration.items():
        family = families.get(section)
        if family is not None and isinstance(given, Mapping):
            kept[section] = _section(family, given)
        elif section == _OPTIONS and isinstance(given, Mapping):
            kept[section] = dict(given)
            if isinstance(given.get("formatter"), Mapping):
                kept[section]["formatter"] = _section("formatter", given["formatter"])
            if given.get("notifications"):
                kept[section]["notifications"] = [_section("notification", one) for one in given["notifications"]]
        else:
            kept[section] = given
    return kept


def _section(family: str, given: Mapping[str, Any]) -> dict[str, Any]:
    options = given.get("options") or {}
    try:
        cls = find(family, given.get("name"))
    except ResilientExporterException:
        return dict(given)
    if not issubclass(cls, Exporter):
        return {**given, "options": redacted(cls.supported_options, options)}
    shown = redacted({name: Option(type=object, secret=True) for name in options if is_secret_name(name)}, options)
    members = options.get("exporters")
    if isinstance(members, (list, tuple)):
        shown["exporters"] = [_section("writer", one) if isinstance(one, Mapping) else one for one in members]
    return {**given, "options": shown}


def described(modules: Iterable[Module]) -> dict[str, Any]:
    """What stands for the configuration of a pipeline that was made in code."""
    return {
        module.part: {
            "name": type(module).__name__,
            "options": {name: _plain(value) for name, value in module.shown_options().items()},
        }
        for module in modules
    }


def compare(kept: Mapping[str, Any], given: Mapping[str, Any], job: str) -> None:
    """Whether a job was begun with this configuration: else its positions and buffers mean something else.

    What may change are secrets, notifications, persistence, stats and how the run goes; what must not are reader,
    stages, formatter and writer with their options.

    Raises:
        StateError: with the first difference.
    """
    if not kept:
        return  # an old persistence keeps none
    kept, given = _with_formatter(kept), _with_formatter(given)
    for section in sorted({*kept, *given} - _FREE):
        before, now = _comparable(kept.get(section)), _comparable(given.get(section))
        secret = {name for name in {**before, **now} if _reference(before.get(name)) or _reference(now.get(name))}
        differing = [name for name in sorted({*before, *now} - secret) if before.get(name) != now.get(name)]
        if differing:
            raise StateError(
                None,
                f"job {job} was begun with another configuration: {section}: "
                + "; ".join(f"{name} was {_short(before, name)}, now is {_short(now, name)}" for name in differing[:3])
                + ". Resume it with the one that it was begun with, or begin a new job",
            )


def _with_formatter(configuration: Mapping[str, Any]) -> dict[str, Any]:
    options = configuration.get(_OPTIONS)
    found = dict(configuration)
    if "filter" in found:
        found["filter_before"] = found.pop("filter")
    if isinstance(options, Mapping) and options.get("formatter"):
        found["formatter"] = options["formatter"]
    return found


def _comparable(section: Any) -> dict[str, Any]:
    """Name and options of a section, as JSON keeps them."""
    if not isinstance(section, Mapping):
        return {}
    options = json.loads(json.dumps(section.get("options") or {}, default=str))
    return {"class": str(section.get("name")).rpartition(".")[2], **options}


def _reference(value: Any) -> bool:
    """Whether there stands only where a secret is to be taken from."""
    if isinstance(value, Mapping):
        return set(value) in ({"env"}, {"secret"}) or any(_reference(one) for one in value.values())
    return isinstance(value, list) and any(_reference(one) for one in value)


def _short(options: Mapping[str, Any], name: str) -> str:
    return f"{options[name]!r:.60}" if name in options else "not given"


def _plain(value: Any) -> Any:
    """An option that was given in code, as it can be kept and compared."""
    if isinstance(value, Exporter):
        return {"name": type(value).__name__, "options": {"name": value.name}}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    name = getattr(value, "__qualname__", None)
    if name:
        return f"{value.__module__}.{name}"
    return f"<{type(value).__name__}>" if " at 0x" in repr(value) else str(value)
