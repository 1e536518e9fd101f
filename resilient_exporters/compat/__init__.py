"""The import names of the systems that this package stands in for.

``from resilient_exporters.compat import bigrays`` has the names where the old package had them. ``install()`` makes
the old top-level names themselves importable, for code that is not to be changed at all.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Final

__all__ = ["install"]

#: Old top-level name to the module that stands in for it. Its MODULES are the old package's modules by dotted name.
_OLD: Final[dict[str, str]] = {
    "bigrays": "resilient_exporters.compat.bigrays",
    "exporters": "resilient_exporters.compat.exporters",
    "pycstbox": "resilient_exporters.compat.pycstbox",
}


def install(*names: str) -> None:
    """Register old top-level names, so that ``from bigrays import tasks`` finds us. Nothing else does it.

    Args:
        *names: which; none: all that are not installed as packages of their own.

    Raises:
        ImportError: there is no such name, or another package of this name is imported already.
    """
    for name in names or _OLD:
        if name not in _OLD:
            raise ImportError(f"compat knows no {name!r}; it has: {', '.join(sorted(_OLD))}")
        found = sys.modules.get(name)
        module = importlib.import_module(_OLD[name])
        if found is not None and found is not module:
            if names:
                raise ImportError(f"{name} is imported already, from {getattr(found, '__file__', None)}")
            continue
        if not names and found is None and importlib.util.find_spec(name) is not None:
            continue
        sys.modules[name] = module
        for dotted, one in module.MODULES.items():
            sys.modules[f"{name}.{dotted}"] = one
