"""Records changed by a jq program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.exporters.lines import json_line
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.transforms.base import BaseRecordTransform

__all__ = ["JQTransform"]

# What reads something else than the record: the environment with its secrets, files, further input.
_REFUSED: Final = re.compile(
    r"""(?<![.\w"'])(?:env|import|include|input|inputs|debug|stderr|halt|halt_error|modulemeta|input_filename)\b|\$ENV\b"""
)


def _is_key(program: str, found: re.Match[str]) -> bool:
    """Whether it is the name of a field: ``{env: .stage}``."""
    before, after = program[: found.start()].rstrip()[-1:], program[found.end() :].lstrip()[:1]
    return before in ("{", ",") and after == ":" and not found.group().startswith("halt")


class JQTransform(BaseRecordTransform):
    """Changes a record by a jq program; each object that it gives is a record, nothing (or null) drops the record.

    The record goes in as JSON: times become texts, and so do numbers of type Decimal. A text that it gives is read as
    JSON. Programs that read the environment, files or further input are refused; how long a program runs is not
    bounded.

    Raises:
        ConfigurationError: jq cannot read the program, or it reads something else than the record.
        MissingModuleError: the extra ``jq`` is not installed.
    """

    supported_options = {
        "jq_filter": Option(type=str, help="Program in the language of jq: '{name: .n, city: .place.city}'."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        program = self.read_option("jq_filter")
        refused = next((found.group() for found in _REFUSED.finditer(program) if not _is_key(program, found)), None)
        if refused is not None:
            raise ConfigurationError(
                None, f"jq_filter={program!r:.80}: {refused} is not allowed: a program sees the record only"
            )
        try:
            import jq
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, "JQTransform needs jq: pip install 'resilient-exporters[jq]'"
            ) from error  # fmt: skip
        try:
            self._program = jq.compile(program)
        except ValueError as error:
            raise ConfigurationError(None, f"jq_filter={program!r:.80}: {str(error).strip()}") from error

    def transform(self, item: BaseRecord) -> Iterable[dict[str, Any]]:
        """What the program makes of it."""
        found: list[dict[str, Any]] = []
        for value in self._program.input_text(json_line(item).decode()).all():
            made = json.loads(value) if isinstance(value, str) and value.strip() else value
            if isinstance(made, dict):
                found.append(made)
            elif made not in (None, ""):
                raise TypeError(f"jq_filter gave a {type(made).__name__}, not an object: {made!r:.60}")
        return found
