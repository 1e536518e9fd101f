"""exporters: the dotted tree of the old pipeline, for code.

``from resilient_exporters.compat.exporters.readers.fs_reader import FSReader`` where it was
``from exporters.readers.fs_reader import FSReader``. Configurations need none of this: in them the old names are known
anyway. A module of the tree is made when it is imported, and a class in it is looked for when it is asked for.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

from resilient_exporters.compat.exporters.tree import Finder
from resilient_exporters.pipeline import BasicExporter, check_for_errors, module_options

__all__ = ["MODULES", "BasicExporter", "check_for_errors", "module_options"]

MODULES: Final[dict[str, ModuleType]] = {}
"""None is made beforehand: a finder makes them."""

if not any(isinstance(finder, Finder) for finder in sys.meta_path):
    sys.meta_path.append(Finder())
