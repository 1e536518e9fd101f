"""The JSON Schema of a configuration, from the tables of options of all modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from resilient_exporters.pipeline.catalogue import classes, old_names
from resilient_exporters.pipeline.configuration import SECTIONS, ExporterOptions
from resilient_exporters.pipeline.option import REQUIRED, ListOf, Option

__all__ = ["configuration_schema"]

_TYPES = {
    str: "string", bytes: "string", int: "integer", float: "number", bool: "boolean", list: "array", tuple: "array",
    dict: "object",
}  # fmt: skip
_ENV = {"type": "object", "properties": {"env": {"type": "string"}}, "required": ["env"], "additionalProperties": False}


def configuration_schema() -> dict[str, Any]:
    """The schema (draft 2020-12): what an editor completes and marks.

    Names of classes of one's own are let pass, with any options; those of this package and its plugins are checked.
    """
    families = {family: _family(family) for family in sorted({*SECTIONS.values(), "formatter", "notification"})}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of a pipeline",
        "type": "object",
        "properties": {
            **{section: {"$ref": f"#/$defs/{family}"} for section, family in SECTIONS.items()},
            "exporter_options": {"$ref": "#/$defs/exporter_options"},
        },
        "required": ["reader", "writer"],
        "additionalProperties": False,
        "$defs": {"exporter_options": _exporter_options(), **families},
    }


def _exporter_options() -> dict[str, Any]:
    found = _options(ExporterOptions.supported_options)
    found["properties"]["formatter"] = {"$ref": "#/$defs/formatter"}
    found["properties"]["notifications"] = {"type": "array", "items": {"$ref": "#/$defs/notification"}}
    return found


def _family(family: str) -> dict[str, Any]:
    """A section: the options that go with each name."""
    known = classes(family)
    cases = [
        {
            "if": {"properties": {"name": {"pattern": _pattern([name, *old_names(name)])}}, "required": ["name"]},
            "then": {
                "description": (cls.__doc__ or "").partition("\n\n")[0].replace("\n", " "),
                "properties": {"options": _options(cls.supported_options)},
                **({"required": ["options"]} if any(one.required for one in cls.supported_options.values()) else {}),
            },
        }
        for name, cls in known.items()
    ]
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", "examples": list(known)},
            "options": {"type": "object"},
        },
        "required": ["name"],
        "additionalProperties": False,
        **({"allOf": cases} if cases else {}),
    }


def _pattern(names: list[str]) -> str:
    """Names of our classes: bare, or dotted as of this package or of the old system."""
    return rf"^((resilient_exporters\.|exporters\.)[\w.]*\.)?({'|'.join(names)})$"


def _options(table: Mapping[str, Option]) -> dict[str, Any]:
    required = [name for name, option in table.items() if option.required]
    return {
        "type": "object",
        "properties": {name: _option(option) for name, option in table.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _option(option: Option) -> dict[str, Any]:
    about: dict[str, Any] = {"description": option.help} if option.help else {}
    if option.default is not REQUIRED:
        about["default"] = msgspec.to_builtins(option.default, enc_hook=str)
    if option.choices:
        return {**about, "anyOf": [{"enum": list(option.choices)}, _ENV]}
    kinds = [_kind(kind) for kind in option.types]
    if option.default is None:
        kinds.append({"type": "null"})
    if {} in kinds:
        return about
    return {**about, "anyOf": [*kinds, _ENV]}


def _kind(kind: Any) -> dict[str, Any]:
    if isinstance(kind, ListOf):
        return {"type": "array", "items": _kind(kind.kind)}
    found = _TYPES.get(kind)
    return {"type": found} if found else {}
