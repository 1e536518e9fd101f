"""The classes there are for each family, and how one is found by name."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from resilient_exporters.exporter import Exporter
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.option import REQUIRED, named

__all__ = ["FAMILIES", "WrongFamily", "classes", "current_name", "find", "module_options", "old_names"]

log = logging.getLogger("export-pipeline")

_PACKAGE: Final = "resilient_exporters.pipeline"
FAMILIES: Final[Mapping[str, str]] = {
    "reader": f"{_PACKAGE}.readers",
    "decompressor": f"{_PACKAGE}.decompressors",
    "deserializer": f"{_PACKAGE}.deserializers",
    "filter": f"{_PACKAGE}.filters",
    "transform": f"{_PACKAGE}.transforms",
    "grouper": f"{_PACKAGE}.groupers",
    "formatter": f"{_PACKAGE}.formatters",
    "writer": f"{_PACKAGE}.writers",
    "persistence": f"{_PACKAGE}.persistence",
    "notification": f"{_PACKAGE}.notifications",
    "stats_manager": f"{_PACKAGE}.stats",
}
"""Family to the module whose ``__all__`` holds its classes. Entry points: ``resilient_exporters.<family>s``."""

_OLD: Final = "exporters."
_OLD_NAMES: Final = {
    "AggregationWriter": "AggregationStatsWriter",
    "CloudsearchWriter": "CloudSearchWriter",
    "JqTransform": "JQTransform",
    "KeyFileGrouper": "FileKeyGrouper",
    "ODOWriter": "OdoWriter",
    "PythonExpFilter": "PythonexpFilter",
    "PythonExpTransform": "PythonexpTransform",
    "PythonexpGrouper": "PythonExpGrouper",
    "BaseExporterLoader": "Module",
}


class WrongFamily(ConfigurationError, TypeError):
    """A class that is none of the family that was asked for."""


def classes(family: str) -> dict[str, type[Module]]:
    """The classes of a family by name: ours, and those of other packages (entry points)."""
    place = importlib.import_module(FAMILIES[family])
    found = {
        name: value
        for name in place.__all__
        if isinstance(value := getattr(place, name), type) and issubclass(value, Module) and not name.startswith("Base")
    }
    for point in importlib.metadata.entry_points(group=f"resilient_exporters.{family}s"):
        try:
            found[point.name] = _checked(point.load(), family, point.name)
        except Exception as error:  # noqa: BLE001 - a plugin that does not load must not take the others with it
            log.warning("plugin %s of %s cannot be loaded: %s", point.name, point.value, error)
    return dict(sorted(found.items()))


def find(family: str, name: object) -> type[Module | Exporter]:
    """The class of a section.

    Args:
        family: that it should be of. For "writer" any exporter or pool of this package will do as well.
        name: class name, dotted path, or a dotted path of the old system (``exporters.writers.fs_writer.FSWriter``).

    Raises:
        ConfigurationError: there is none of this name; with the one that was meant, perhaps.
        WrongFamily: it is no such class.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError(None, f"Module name is missing: give the name of a {family}")
    last = name.rpartition(".")[2].rpartition(":")[2]
    if not set(".:") & set(name) or name.startswith(_OLD):
        known = classes(family)
        found = known.get(_OLD_NAMES.get(last, last))
        if found is not None:
            return found
        if "." not in name:
            if family == "writer" and (exporter := _exporter(name)) is not None:
                return exporter
            raise ConfigurationError(None, f"there is no {family} {named(name, known)}; there are: {', '.join(known)}")
    found_class: type[Module | Exporter] = _checked(_imported(name, family), family, name)
    return found_class


def current_name(name: str) -> str:
    """What a class of the old system is called now."""
    return _OLD_NAMES.get(name, name)


def old_names(name: str) -> list[str]:
    """The names that a class had in the old system, where they differ."""
    return [old for old, new in _OLD_NAMES.items() if new == name]


def _exporter(name: str) -> type[Exporter] | None:
    import resilient_exporters

    value = getattr(resilient_exporters, name) if name in resilient_exporters.__all__ else None
    return value if isinstance(value, type) and issubclass(value, Exporter) and value is not Exporter else None


def _imported(name: str, family: str) -> Any:
    module, _, attribute = name.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a module may do anything when it is imported, and may end there
        known = classes(family)
        hint = f"; there are: {', '.join(known)}" if name.startswith(_OLD) else ""
        what = f"it ends the program ({error})" if isinstance(error, SystemExit) else error
        raise ConfigurationError(None, f"{name} cannot be loaded: {what}{hint}") from error


def _checked(value: Any, family: str, name: str) -> Any:
    if isinstance(value, type) and (
        (issubclass(value, Module) and value.family == family) or (family == "writer" and issubclass(value, Exporter))
    ):
        return value
    what = getattr(value, "family", None) if isinstance(value, type) else type(value).__name__
    raise WrongFamily(None, f"{name} is no {family}" + (f" but a {what}" if what else ""))


def module_options() -> dict[str, dict[str, dict[str, Any]]]:
    """Every class there is with its options: family to name to ``{"doc": …, "options": {…}}``; plain values only."""
    return {
        family: {
            name: {
                "doc": (cls.__doc__ or "").partition("\n\n")[0].replace("\n", " "),
                "class": f"{cls.__module__}.{cls.__qualname__}",
                "options": {
                    option: {
                        "type": spec.type_names,
                        "required": spec.required,
                        **(
                            {}
                            if spec.default is REQUIRED
                            else {"default": msgspec.to_builtins(spec.default, enc_hook=str)}
                        ),
                        **({"env_fallback": spec.env_fallback} if spec.env_fallback else {}),
                        **({"choices": list(spec.choices)} if spec.choices else {}),
                        "secret": spec.secret,
                        "help": spec.help,
                    }
                    for option, spec in cls.supported_options.items()
                },
            }
            for name, cls in classes(family).items()
        }
        for family in FAMILIES
    }
