"""The package that ``export`` was a module of, for ``compat.install("pycstbox")``."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from resilient_exporters.compat import pycstbox_export as export

__all__ = ["export"]

#: The modules of the old package.
MODULES: Final[dict[str, ModuleType]] = {"export": export}
