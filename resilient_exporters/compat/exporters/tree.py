"""The modules of the old tree, made by a finder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

from resilient_exporters.pipeline.catalogue import FAMILIES, current_name

__all__ = ["Finder"]

_HOME: Final = "resilient_exporters.compat.exporters"
_PLACES: Final = {
    "readers": (FAMILIES["reader"],),
    "writers": (FAMILIES["writer"],),
    "filters": (FAMILIES["filter"],),
    "transform": (FAMILIES["transform"],),
    "groupers": (FAMILIES["grouper"],),
    "persistence": (FAMILIES["persistence"],),
    "notifications": (FAMILIES["notification"],),
    "stats_managers": (FAMILIES["stats_manager"],),
    "export_formatter": (FAMILIES["formatter"],),
    "decompressors": (FAMILIES["decompressor"],),
    "deserializers": (FAMILIES["deserializer"],),
    "write_buffers": ("resilient_exporters.pipeline.writers.write_buffer",),
    "export_managers": ("resilient_exporters.pipeline", "resilient_exporters.pipeline.bypass"),
    "bypasses": ("resilient_exporters.pipeline.bypass", "resilient_exporters.pipeline"),
    "exceptions": ("resilient_exporters.pipeline",),
    "exporter_config": ("resilient_exporters.pipeline",),
    "records": ("resilient_exporters.pipeline",),
    "meta": ("resilient_exporters.pipeline",),
    "pipeline": ("resilient_exporters.pipeline.module",),
    "contrib": (FAMILIES["writer"],),
    "default_retries": (f"{_HOME}.retries",),
    "utils": (f"{_HOME}.options",),
}
"""First part of the old dotted name to where its names are now. Files below it had one class each: any name will do."""
_NAMES: Final = {
    "BaseExporter": "BasicExporter",
    "BasePipelineItem": "Module",
    "BaseExportFormatter": "BaseFormatter",
    "BaseWriter": "BaseBufferedWriter",  # what the old one was: it got finished files
    "ExportMeta": "ExportMetadata",
    "FilebaseBaseWriter": "BaseFilebaseWriter",
}


class Finder(MetaPathFinder, Loader):
    """Makes the modules below ``resilient_exporters.compat.exporters``, and below ``exporters`` once installed."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the signature of finders
        target: ModuleType | None = None,  # noqa: ARG002 - as above
    ) -> ModuleSpec | None:
        """The spec of a module of the tree; None for any other."""
        inner = _inner(fullname)
        first = inner.partition(".")[0]
        deepest = 2 if first == "contrib" else 1  # contrib.writers.odo_writer
        if first not in _PLACES or inner.count(".") > deepest:
            return None
        return ModuleSpec(fullname, self, is_package=inner.count(".") < deepest)

    def exec_module(self, module: ModuleType) -> None:
        """Give it its names, found when they are asked for."""
        first = _inner(module.__name__).partition(".")[0]

        def find(name: str) -> Any:
            return _attribute(module.__name__, _PLACES[first], name)

        module.__doc__ = f"Stands in for a module of the old tree; its names are those of {', '.join(_PLACES[first])}."
        module.__getattr__ = find  # type: ignore[method-assign] # PEP 562: how a module finds names


def _inner(fullname: str) -> str:
    if fullname.startswith(f"{_HOME}."):
        return fullname.removeprefix(f"{_HOME}.")
    if fullname.startswith("exporters.") and sys.modules.get("exporters") is sys.modules.get(_HOME):
        return fullname.removeprefix("exporters.")
    return ""


def _attribute(module: str, places: Sequence[str], name: str) -> Any:
    wanted = _NAMES.get(name) or current_name(name)
    for place in places:
        found = importlib.import_module(place)
        if wanted in getattr(found, "__all__", ()):
            return getattr(found, wanted)
    raise AttributeError(f"module {module!r} has no {name!r}; what there is, is in {' and '.join(places)}")
