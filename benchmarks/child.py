"""The process in which one thing is measured: ``python -m benchmarks.child module:function '{"argument": ...}'``.

An argument ``without`` names modules that are to be seen as not installed.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys

if __name__ == "__main__":
    logging.disable(logging.WARNING)  # that a target is away is what is measured
    module, name = sys.argv[1].split(":")
    arguments = json.loads(sys.argv[2])
    for missing in arguments.pop("without", ()):
        sys.modules[missing] = None  # type: ignore[assignment] # this is how an import is refused
    print(json.dumps(getattr(importlib.import_module(module), name)(**arguments)), flush=True)
