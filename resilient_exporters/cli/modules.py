"""``rexport modules`` and ``rexport schema``: which modules there are, and what they take."""

from __future__ import annotations

from typing import Any

import click

from resilient_exporters.cli.console import print_json, print_table, rows, short_json, table
from resilient_exporters.pipeline import module_options
from resilient_exporters.pipeline.catalogue import FAMILIES, find
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.option import REQUIRED, named
from resilient_exporters.pipeline.schema import configuration_schema

__all__ = ["modules", "schema"]


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def modules(name: str | None, as_json: bool) -> None:
    """List the modules for configurations, or the options of one.

    NAME is the name of a class (also a dotted one, also of the old system), or of a family: reader, filter, writer ….
    """
    catalogue = module_options()
    if name is None or name in catalogue:
        chosen = {family: found for family, found in catalogue.items() if name in (None, family)}
        if as_json:
            print_json(chosen)
        else:
            _list(chosen)
        return
    family, cls = _found(name)
    options = catalogue[family].get(cls.__name__)
    if options is None:
        options = {"doc": "", "class": f"{cls.__module__}.{cls.__qualname__}", "options": cls.supported_options}
    if as_json:
        print_json({cls.__name__: options})
    else:
        _show(family, cls, options)


@click.command()
def schema() -> None:
    """Print the JSON Schema of a configuration, for editors that check and complete."""
    print_json(configuration_schema())


def _list(catalogue: dict[str, Any]) -> None:
    made = table("family", "module", "what it does")
    for family, found in catalogue.items():
        for name, one in found.items():
            rows(made, [(family, name, one["doc"])])
    print_table(made)


def _found(name: str) -> tuple[str, type[Module]]:
    for family in FAMILIES:
        try:
            found = find(family, name)
        except ConfigurationError:
            continue
        if issubclass(found, Module):
            return family, found
    known = sorted({each for found in module_options().values() for each in found})
    raise click.BadParameter(f"there is no module {named(name, [*known, *FAMILIES])}", param_hint="NAME")


def _show(family: str, cls: type[Module], found: dict[str, Any]) -> None:
    click.echo(f"{family} {cls.__name__}: {found['doc']}\n{found['class']}")
    made = table("option", "type", "default", "from the environment", "what it is")
    for name, option in cls.supported_options.items():
        fixed = "" if option.default is REQUIRED else short_json(option.default)
        default = "(required)" if option.required else fixed
        rows(made, [(name, option.type_names, default, option.env_fallback or "", option.help)])
    print_table(made)
