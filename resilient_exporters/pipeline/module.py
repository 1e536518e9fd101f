"""Module: what readers, filters, transforms, groupers, formatters, writers and the rest have in common."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar

from resilient_exporters.pipeline.bad_records import BadRecords
from resilient_exporters.pipeline.errors import ConfigCheckError, ConfigurationError
from resilient_exporters.pipeline.metadata import ExportMetadata
from resilient_exporters.pipeline.option import Option, check_options, merged, redacted
from resilient_exporters.pipeline.secrets import texts

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LOGGER", "Module", "options_of"]

LOGGER = "export-pipeline"


class Module:
    """One part of a pipeline, with its options and its figures.

    A subclass lists its options in ``supported_options`` (those of its bases are there already) and reads them by
    ``read_option``. It is made from a section of a configuration, or in code by keywords.

    Args:
        config: a section of a configuration: ``{"name": …, "options": {…}}``; or None.
        metadata: the figures of the run that it is part of; its own by default.
        **options: the same as in ``config["options"]``, and before these.

    Raises:
        ConfigCheckError: options that there are not, are missing, or cannot be; all at once.

    Attributes:
        part: which part of the pipeline it is: a name for figures, state and log lines.
        options: as given.
        metadata: of the run.
        bad_records: where records go that cannot be read or changed.
        logger: of the pipeline, its lines begin with the family.
    """

    family: ClassVar[str] = "module"
    supported_options: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.supported_options = merged(cls, cls.__dict__.get("supported_options", {}))

    def __init__(
        self, config: Mapping[str, Any] | None = None, metadata: ExportMetadata | None = None, **options: Any
    ) -> None:
        self.part = self.family
        self.options: dict[str, Any] = {**options_of(config, type(self).__name__), **options}
        errors = check_options(self.supported_options, self.options)
        if errors:
            raise ConfigCheckError({type(self).__name__: errors})
        self.metadata = metadata or ExportMetadata()
        self.bad_records = BadRecords()
        self.use_logger(LOGGER)

    @classmethod
    def from_section(cls, config: Mapping[str, Any], metadata: ExportMetadata | None = None) -> Self:
        """From a section of a configuration, where the constructor takes more than that."""
        return cls(config, metadata)

    def read_option(self, name: str, default: Any = None) -> Any:
        """The value of an option: as given, or from the environment, or its default.

        Args:
            name: of the option.
            default: taken where the option's own default is None.

        Raises:
            ConfigurationError: the class has no such option.
        """
        option: Option | None = self.supported_options.get(name)
        if option is None:
            raise ConfigurationError(None, f"{type(self).__name__} has no option {name}")
        value = option.value(self.options, name)
        return default if value is None else value

    def shown_options(self) -> dict[str, Any]:
        """The options as they may be shown: without secrets."""
        return redacted(self.supported_options, self.options)

    def secrets(self) -> Iterator[str]:
        """The texts in its options that must not be shown."""
        for name, option in self.supported_options.items():
            try:
                value = option.value(self.options, name)
            except ConfigurationError:  # a variable that is not set any more holds no secret
                continue
            yield from texts(value, secret=option.secret)

    def use_logger(self, name: str) -> None:
        """Log there; lines begin with the family."""
        self.logger = _Prefixed(logging.getLogger(name), {"family": self.family})

    # -- figures -------------------------------------------------------------------------------------------------

    def get_metadata(self, key: str) -> Any:
        """One figure, or None."""
        return self.metadata.of(self.part).get(key)

    def set_metadata(self, key: str, value: Any) -> None:
        """Set one figure."""
        self.metadata.of(self.part)[key] = value

    def update_metadata(self, values: Mapping[str, Any]) -> None:
        """Set several figures."""
        self.metadata.of(self.part).update(values)

    def get_all_metadata(self) -> dict[str, Any]:
        """All figures of this module."""
        return self.metadata.of(self.part)

    # -- state: what a resume needs ------------------------------------------------------------------------------

    def get_state(self) -> Any:
        """What a resume needs beside the reader's position; replaces what was kept before. None: nothing.

        Asked after each batch, before the position is committed, in the same transaction. Values of every type that
        the codec knows: what ``send`` takes.
        """
        return None

    def set_state(self, state: Any) -> None:
        """Go on from there. Called before the first batch of a resumed run, if there is a state."""

    def drain_journal(self) -> list[Any]:
        """What is to be added to the state: entries since the last call. For states that only grow."""
        return []

    def replay_journal(self, entries: list[Any]) -> None:
        """Go on from there: some of the entries, in their order. Called several times for long journals."""

    def close(self) -> None:
        """Let go of files and connections. Called once, also after a failure."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r:.60}" for name, value in self.shown_options().items())
        return f"{type(self).__name__}({shown})"


if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # Python 3.10 has no types for it


class _Prefixed(_Adapter):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        extra = self.extra or {}
        return f"{str(extra['family']).upper().replace('_', ' ')}: {msg}", kwargs


def options_of(config: Any, owner: str) -> Mapping[str, Any]:
    """The options in a section of a configuration; there may be none.

    Raises:
        ConfigurationError: it is no section, or its options are no mapping.
    """
    if config is None:
        return {}
    if not isinstance(config, Mapping) or set(config) - {"name", "options"}:
        raise ConfigurationError(
            None, f'{owner}({config!r:.80}): give {{"options": {{…}}}}, a section of a configuration, or keywords'
        )
    options = config.get("options")
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ConfigurationError(None, f"{owner}: options={options!r:.80} is no mapping")
    return options
