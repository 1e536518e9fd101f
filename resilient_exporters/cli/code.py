"""Code that a command is told to run: a module or a file, and what is in it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click

__all__ = ["load", "load_attribute"]


def load(name: str) -> ModuleType:
    """Import a file or a dotted name; modules beside the file, or in the working directory, are found.

    Raises:
        click.UsageError: there is none.
    """
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise click.UsageError(f"there is no file {name}")
        sys.path.insert(0, str(path.parent.absolute()))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - it is a Python file
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise click.UsageError(f"there is no module {error.name}; give a dotted name, or a file.py") from None
        raise


def load_attribute(target: str) -> Any:
    """What ``module:name`` or ``file.py:name`` stands for.

    Raises:
        click.UsageError: there is nothing of the kind.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise click.UsageError(f"{target} is no module:Class; give a dotted name or a file.py, a colon, and a name")
    value: Any = load(place)
    for part in name.split("."):
        if not hasattr(value, part):
            raise click.UsageError(f"{place} has no {name}")
        value = getattr(value, part)
    return value
