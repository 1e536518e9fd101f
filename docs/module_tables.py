"""A Sphinx directive that writes the modules of a family with their options, from the tables in the code."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from resilient_exporters.pipeline.catalogue import classes
from resilient_exporters.pipeline.configuration import ExporterOptions
from resilient_exporters.pipeline.option import REQUIRED, Option


class PipelineModules(SphinxDirective):
    """``{pipeline-modules} reader``: a section for each class of the family; ``exporter_options``: its table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        family = self.arguments[0]
        if family == "exporter_options":
            return [_table(ExporterOptions.supported_options)]
        found: list[nodes.Node] = []
        for name, cls in classes(family).items():
            section = nodes.section(ids=[nodes.make_id(f"{family}-{name}")])
            section += nodes.title(text=name)
            for paragraph in _paragraphs(cls.__doc__ or ""):
                section += paragraph
            if cls.supported_options:
                section += _table(cls.supported_options)
            found.append(section)
        return found


def _paragraphs(doc: str) -> list[nodes.Node]:
    """The prose of a docstring, up to its first list of arguments."""
    made: list[nodes.Node] = []
    for block in doc.split("\n\n"):
        lines = [line.strip() for line in block.strip().splitlines()]
        if not lines or lines[0].rstrip(":") in ("Args", "Attributes", "Raises", "Returns", "Example"):
            break
        made.append(_text(" ".join(lines)))
    return made


def _text(text: str) -> nodes.paragraph:
    """A paragraph in which ``double backticks`` are code."""
    made = nodes.paragraph()
    for number, part in enumerate(text.split("``")):
        made += nodes.literal(text=part) if number % 2 else nodes.Text(part)
    return made


def _table(options: Any) -> nodes.table:
    heads = ("option", "type", "default", "environment", "what it is")
    group = nodes.tgroup(cols=len(heads))
    for width in (18, 12, 14, 14, 42):
        group += nodes.colspec(colwidth=width)
    head = nodes.thead()
    head += _row(*(nodes.paragraph(text=one) for one in heads))
    body = nodes.tbody()
    for name, option in options.items():
        body += _row(
            _code(name),
            nodes.paragraph(text=option.type_names),
            nodes.paragraph(text="required") if option.required else _code(_default(option)),
            _code(option.env_fallback or ""),
            _text(_help(option)),
        )
    group += head
    group += body
    table = nodes.table()
    table += group
    return table


def _row(*cells: nodes.Node) -> nodes.row:
    made = nodes.row()
    for cell in cells:
        entry = nodes.entry()
        entry += cell
        made += entry
    return made


def _code(text: str) -> nodes.paragraph:
    made = nodes.paragraph()
    if text:
        made += nodes.literal(text=text)
    return made


def _default(option: Option) -> str:
    return "" if option.default is REQUIRED else repr(option.default)


def _help(option: Option) -> str:
    choices = f" One of {', '.join(map(str, option.choices))}." if option.choices else ""
    return f"{option.help}{choices}{' Secret.' if option.secret else ''}"
