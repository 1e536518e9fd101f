"""Exporters from URLs: ``from_url("file:///var/log/x.jsonl?max_lines=1000")``.

The scheme names the exporter, by the entry-point group ``resilient_exporters.exporters``; the query holds its options.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any, Final

from resilient_exporters.errors import InvalidConfigError, MissingModuleError
from resilient_exporters.exporter import Exporter
from resilient_exporters.exporters.parsed_url import ParsedURL, arguments, parameters

__all__ = ["GROUP", "ParsedURL", "arguments", "build", "from_url", "schemes"]

GROUP: Final = "resilient_exporters.exporters"
"""Entry-point group: a scheme, and a class or a function that takes (parsed, options) and returns an Exporter."""

_BUILT_IN: Final = {
    "elasticsearch": "resilient_exporters.exporters.elasticsearch:ElasticsearchExporter",
    "elasticsearch+https": "resilient_exporters.exporters.elasticsearch:ElasticsearchExporter",
    "es": "resilient_exporters.exporters.elasticsearch:ElasticsearchExporter",
    "file": "resilient_exporters.exporters.file:FileExporter",
    "mongodb": "resilient_exporters.exporters.mongodb:MongoDBExporter",
    "mongodb+srv": "resilient_exporters.exporters.mongodb:MongoDBExporter",
    "mariadb": "resilient_exporters.exporters.mysql:MySQLExporter",
    "mssql": "resilient_exporters.exporters.sqlserver:SQLServerExporter",
    "mysql": "resilient_exporters.exporters.mysql:MySQLExporter",
    "postgres": "resilient_exporters.exporters.postgresql:PostgreSQLExporter",
    "postgresql": "resilient_exporters.exporters.postgresql:PostgreSQLExporter",
    "sql": "resilient_exporters.exporters.sql:SQLExporter",
    "sqlite": "resilient_exporters.exporters.sql:SQLExporter",
    "sqlserver": "resilient_exporters.exporters.sqlserver:SQLServerExporter",
}  # for a source checkout, which has no entry points

_EXTRAS: Final = {
    "sqlalchemy": "sql", "psycopg": "postgres", "pymongo": "mongodb", "elasticsearch": "elasticsearch",
    "urllib3": "http", "paho": "mqtt", "confluent_kafka": "kafka", "fsspec": "fs",
}  # fmt: skip


def from_url(url: str, **options: Any) -> Exporter:
    """Make an exporter.

    Args:
        url: scheme, place and options: ``sqlite:///x.db?table=readings`` (relative), ``sqlite:////abs/x.db``,
            ``file:///var/log/x.jsonl?max_lines=1000``. Query values are converted as the constructor's annotations say
            (int, float, bool; size texts such as "16 MB" stay texts).
        **options: further options of the constructor; they win over the query, and can be what a URL cannot hold.

    Raises:
        InvalidConfigError: no such scheme, no such option, or a value that the option cannot have.
        MissingModuleError: the extra of the scheme is not installed.
    """
    parsed = ParsedURL.parse(url)
    target = _load(parsed)
    own = getattr(target, "from_url", None)
    if own is not None:
        made = own(parsed, options)
    elif isinstance(target, type) and issubclass(target, Exporter):
        made = build(target, parsed, options)
    else:
        made = target(parsed, options)
    if not isinstance(made, Exporter):
        raise InvalidConfigError(
            None, f"scheme {parsed.scheme!r}: {target!r} made a {type(made).__name__}, no Exporter"
        )
    return made


def build(cls: type[Exporter], parsed: ParsedURL, options: Mapping[str, Any]) -> Exporter:
    """Make an exporter of a class that says nothing of URLs itself: its parameters are filled by their names.

    ``target_file``, ``path`` or ``filename`` gets the path; ``url`` the URL without query; ``host``,
    ``target_host`` or ``target_ip``, ``port`` or ``target_port``, ``username`` and ``password`` theirs; ``database`` or
    ``default_db`` the first part of the path. The query fills the others.
    """
    known = parameters(cls)
    given: dict[str, Any] = {}
    for names, value_of in _PLACES:
        name = next((each for each in names if each in known), None)
        if name is not None and name not in options and (value := value_of(parsed)) is not None:
            given[name] = value
    found, _ = arguments(cls, parsed, options, taken=set(given))
    return cls(**given, **found)


_PLACES: Final[tuple[tuple[tuple[str, ...], Callable[[ParsedURL], Any]], ...]] = (
    (("target_file", "path", "filename"), lambda parsed: parsed.file_path),
    (("url",), lambda parsed: parsed.with_query(())),
    (("target_host", "target_ip", "host"), lambda parsed: parsed.host),
    (("target_port", "port"), lambda parsed: parsed.port),
    (("username",), lambda parsed: parsed.username),
    (("password",), lambda parsed: parsed.password),
    (("database", "default_db"), lambda parsed: parsed.path.strip("/").split("/")[0] or None),
)


def schemes() -> dict[str, str]:
    """The schemes there are, and what each stands for ("module:name")."""
    found = dict(_BUILT_IN)
    found.update((each.name.lower(), each.value) for each in importlib.metadata.entry_points(group=GROUP))
    return dict(sorted(found.items()))


def _load(parsed: ParsedURL) -> Any:
    known = schemes()
    value = known.get(parsed.scheme) or known.get(parsed.scheme.partition("+")[0])
    if value is None:
        close = difflib.get_close_matches(parsed.scheme, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InvalidConfigError(
            None, f"url {parsed}: no exporter for {parsed.scheme!r}; {hint}There are: {', '.join(known)}"
        )
    module, _, name = value.partition("[")[0].strip().partition(":")
    try:
        found: Any = importlib.import_module(module.strip())
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(top)
        what = f"resilient-exporters[{extra}]" if extra else error.name
        raise MissingModuleError(None, f"scheme {parsed.scheme!r} needs {error.name}: pip install '{what}'") from error
    for each in name.strip().split("."):
        found = getattr(found, each)
    return found
