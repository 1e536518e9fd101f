"""A configuration: its sections, what is wrong with them, and the parts that they make."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from resilient_exporters.errors import InvalidConfigError, MissingConfigError, MissingModuleError
from resilient_exporters.exporter import Exporter
from resilient_exporters.pipeline.bad_records import CHOICES
from resilient_exporters.pipeline.catalogue import find
from resilient_exporters.pipeline.errors import ConfigCheckError, ConfigurationError
from resilient_exporters.pipeline.metadata import ExportMetadata
from resilient_exporters.pipeline.module import LOGGER, Module, options_of
from resilient_exporters.pipeline.option import ListOf, Option, named
from resilient_exporters.pipeline.readers.stdin import StdinReader, line_deserializer
from resilient_exporters.pipeline.readers.tail import TailReader
from resilient_exporters.pipeline.secrets import Curtain, texts
from resilient_exporters.pipeline.writers.exporter_writer import ExporterWriter
from resilient_exporters.units import parse_count

__all__ = ["SECTIONS", "ExporterOptions", "Parts", "check_for_errors", "read"]

SECTIONS: Final[Mapping[str, str]] = {
    "reader": "reader",
    "decompressor": "decompressor",
    "deserializer": "deserializer",
    "filter": "filter",
    "filter_before": "filter",
    "transform": "transform",
    "filter_after": "filter",
    "grouper": "grouper",
    "writer": "writer",
    "persistence": "persistence",
    "stats_manager": "stats_manager",
}
"""Section to the family of its class; in the order in which they are made."""
_MANDATORY: Final = ("reader", "writer")
_OPTIONS: Final = "exporter_options"


class ExporterOptions(Module):
    """The section ``exporter_options``: what concerns the whole run."""

    family = "exporter_options"
    supported_options = {
        "log_level": Option(
            type=str, default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), help="Of the log.",
        ),
        "logger_name": Option(type=str, default=LOGGER, help="Name of the logger."),
        "formatter": Option(type=dict, default=None, help="Section of the formatter; default: JsonExportFormatter."),
        "notifications": Option(type=ListOf(dict), default=[], help="Sections of those who are told of start and end."),
        "prevent_bypass": Option(type=bool, default=False, help="Never copy from source to target past the pipeline."),
        "stream_bypass": Option(
            type=bool, default=False,
            help="Copy whole streams as they are, between any two stores, where nothing asks for their records.",
        ),
        "disable_retries": Option(type=bool, default=False, help="Readers and writers try once only."),
        "threaded": Option(type=bool, default=False, help="Reader, stages and writer in a thread each."),
        "thread_queue_size": Option(
            type=int, default=100, check=lambda value: parse_count(value, "thread_queue_size"),
            help="Batches that may wait between two threads.",
        ),
        "forced_reads": Option(type=bool, default=False, help="Read each batch whole before its records go on."),
        "resume": Option(type=bool, default=False, help="Go on with the job persistence_state_id."),
        "persistence_state_id": Option(type=str, default=None, help="Id of the job."),
        "on_bad_record": Option(
            type=str, default="fail", choices=CHOICES,
            help="A record that cannot be read or changed ends the run, is left out, or is kept aside, too.",
        ),
        "work_dir": Option(type=str, default=None, help="Directory for buffers; default: in the state folder."),
    }  # fmt: skip


class Parts:
    """The modules of one configuration.

    Args:
        configuration: a mapping, as ``read`` gives it.
        metadata: of the run.

    Raises:
        ConfigCheckError: all that is wrong with it.

    Attributes:
        options: of the whole run.
        modules: by section, where there is one; ``formatter`` among them.
        notifications: in the order given.
    """

    def __init__(self, configuration: Mapping[str, Any], metadata: ExportMetadata | None = None) -> None:
        if not isinstance(configuration, Mapping):
            raise ConfigCheckError(
                {"configuration": f"a {type(configuration).__name__}: give a mapping with reader and writer"}
            )
        self.metadata = metadata or ExportMetadata()
        self.errors: dict[str, Any] = {}
        self.modules: dict[str, Any] = {}
        self.notifications: list[Any] = []
        self.options = ExporterOptions()
        self._make(dict(configuration))
        if self.errors:
            self.close()
            raise ConfigCheckError(self.errors)

    def close(self) -> None:
        """Close the modules: they are not going to run."""
        for module in (*self.modules.values(), *self.notifications):
            if module is not None:
                module.close()

    def _make(self, configuration: dict[str, Any]) -> None:
        unknown = [named(name, [*SECTIONS, _OPTIONS]) for name in configuration if name not in (*SECTIONS, _OPTIONS)]
        if unknown:
            self.errors["unsupported_sections"] = ", ".join(unknown)
        labels = {}
        if configuration.get("filter"):
            configuration["filter_before"] = configuration.pop("filter")  # the alias wins, as it did
            labels["filter_before"] = "filter"
        for section, family in SECTIONS.items():
            if configuration.get(section) is not None:
                module = self._module(section, family, configuration[section], labels.get(section))
                if module is not None:
                    self.modules[section] = module
            elif section in _MANDATORY:
                self.errors[section] = "Missing section"
        self._make_options({} if configuration.get(_OPTIONS) is None else configuration[_OPTIONS])
        self._give_to_reader()

    def _make_options(self, given: Any) -> None:
        if not isinstance(given, Mapping):
            self.errors[_OPTIONS] = f"{given!r:.80} is no mapping"
            return
        try:
            self.options = ExporterOptions({"options": given}, self.metadata)
        except ConfigCheckError as error:
            self.errors[_OPTIONS] = next(iter(error.errors.values()))
            return
        if self.options.read_option("resume") and not self.options.read_option("persistence_state_id"):
            missing = "Option persistence_state_id is missing: resume needs the id of the job"
            self.errors[_OPTIONS] = {"persistence_state_id": missing}
        formatter = self.options.read_option("formatter")
        if formatter is not None:
            self.modules["formatter"] = self._module("formatter", "formatter", formatter)
        for number, section in enumerate(self.options.read_option("notifications")):
            module = self._module(f"notifications_{number}", "notification", section)
            self.notifications.append(module)

    def _give_to_reader(self) -> None:
        reader = self.modules.get("reader")
        for section in ("decompressor", "deserializer"):
            module = self.modules.get(section)
            if module is None or reader is None:
                continue
            if isinstance(reader, (StdinReader, TailReader)) and section == "deserializer":
                try:
                    reader.deserializer = module
                    line_deserializer(reader)
                except ConfigurationError as error:
                    self.errors[section] = error.content
            elif hasattr(reader, section):
                setattr(reader, section, module)
            else:
                self.errors[section] = f"{type(reader).__name__} reads no streams: it takes no {section}"

    def _module(self, section: str, family: str, given: Any, label: str | None = None) -> Any:
        label = label or section
        if not isinstance(given, Mapping):
            self.errors[label] = f'{given!r:.80} is no section: give {{"name": …, "options": {{…}}}}'
            return None
        if not given.get("name"):
            self.errors[label] = "Module name is missing"
            return None
        try:
            cls = find(family, given["name"])
            extra = [named(key, ("name", "options")) for key in given if key not in ("name", "options")]
            if extra:
                raise ConfigurationError(None, f"{', '.join(extra)}: a section has name and options only")
            made = _made(cls, given, self.metadata)
        except ConfigCheckError as error:
            inner = error.errors
            self.errors[label] = next(iter(inner.values())) if len(inner) == 1 else inner
        except (InvalidConfigError, MissingConfigError, MissingModuleError) as error:
            self.errors[label] = Curtain(texts(given, secret=False)).hide(error.content)
        except Exception as error:  # noqa: BLE001 - the constructor of somebody else's class
            text = f"{given['name']} cannot be made: {type(error).__name__}: {error}"
            self.errors[label] = Curtain(texts(given, secret=False)).hide(text)
        else:
            made.part = section
            return made
        return None


def _made(cls: Any, given: Mapping[str, Any], metadata: ExportMetadata) -> Any:
    if issubclass(cls, Exporter):
        options = dict(options_of(given, cls.__name__))
        names = [name for name in ExporterWriter.supported_options if name in options and name != "exporter"]
        own = {name: options.pop(name) for name in names}
        return ExporterWriter(metadata=metadata, exporter={"name": given["name"], "options": options}, **own)
    return cls.from_section({"options": given.get("options")}, metadata)


def check_for_errors(config: Mapping[str, Any], raise_exception: bool = True) -> dict[str, Any]:
    """All that is wrong with a configuration, before anything runs: section to message, or to option to message.

    Args:
        config: the configuration.
        raise_exception: raise it, rather than return it.

    Raises:
        ConfigCheckError: something is wrong.
    """
    try:
        Parts(config).close()
    except ConfigCheckError as error:
        if raise_exception:
            raise
        return error.errors
    return {}


def read(path: str | Path) -> dict[str, Any]:
    """The configuration in a file, JSON or YAML.

    Raises:
        ConfigurationError: it cannot be read, or is no mapping.
        MissingModuleError: it is YAML, and the extra ``yaml`` is not installed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationError(None, f"configuration {path}: {error}") from error
    try:
        found = _parsed(path, text)
    except RecursionError as error:
        raise ConfigurationError(None, f"configuration {path} is nested too deeply to be one") from error
    if not isinstance(found, dict):
        raise ConfigurationError(
            None, f"configuration {path} is a {type(found).__name__}: give a mapping with reader and writer"
        )
    return found


def _parsed(path: str | Path, text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError as error:
        if Path(path).suffix != ".json":
            return _yaml(path, text)
        with contextlib.suppress(ConfigurationError, MissingModuleError):
            if isinstance(found := _yaml(path, text), dict):
                return found  # the old system read comments in a .json, and commas too many
        raise ConfigurationError(None, f"configuration {path} is no JSON: {error}") from error


def _yaml(path: str | Path, text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingModuleError(
            None, f"configuration {path} is no JSON; for YAML: pip install 'resilient-exporters[yaml]'"
        ) from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a ValueError is a date such as 2024-02-30
        raise ConfigurationError(None, f"configuration {path} is neither JSON nor YAML: {error}") from error
