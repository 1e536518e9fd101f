"""All records reduced to one value."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from resilient_exporters.codec import encode
from resilient_exporters.errors import EncodingError
from resilient_exporters.pipeline.errors import BadRecordError, ConfigurationError, LimitExceeded
from resilient_exporters.pipeline.expression import Function, check_data, compile_function
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.writers.base import OUTDATED, BaseWriter

__all__ = ["ReduceWriter"]


class ReduceWriter(BaseWriter):
    """Reduces the records to one value, ``reduced_result``, by a function of the record and what came of those before.

    ``code`` (or the file ``source_path``) defines ``reduce_function(item, accumulator=None)``. It runs in the
    restricted evaluator of expressions: no import, no attribute that begins with ``_``, bounded time and memory. For
    all of Python give ``function``: a callable, or its dotted path. The accumulator is kept with the job after each
    batch: it has to be of types that ``send`` takes.
    """

    formats = groups = False
    supported_options = {
        **OUTDATED,
        "code": Option(type=str, default=None, help="Text that defines reduce_function(item, accumulator=None)."),
        "source_path": Option(type=str, default=None, help="Where the text is from; read if code is not given."),
        "function": Option(type=object, default=None, help="A callable, or a dotted path of one, in place of code."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._function = self._found()
        self._accumulator: Any = None

    def _found(self) -> Callable[[Any, Any], Any]:
        given = {name: self.read_option(name) for name in ("code", "source_path", "function")}
        if (given["function"] is None) == (given["code"] is None and given["source_path"] is None):
            raise ConfigurationError(None, "give code or function, one of them")
        if given["function"] is not None:
            return _callable(given["function"])
        code = given["code"]
        if code is None:
            try:
                code = Path(given["source_path"]).read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise ConfigurationError(None, f"source_path={given['source_path']!r}: {error}") from error
        return compile_function(code, "reduce_function")

    @property
    def reduced_result(self) -> Any:
        """What came of all records so far; None before the first."""
        return self._accumulator

    def write_batch(self, batch: Iterable[BaseRecord]) -> None:
        """Reduce a batch.

        Raises:
            BadRecordError: the function raised, and ``on_bad_record`` is "fail".
        """
        function = self._function
        for record in self.counted(batch):
            try:
                self._accumulator = function(record, self._accumulator)
            except BadRecordError:
                raise
            except Exception as error:  # noqa: BLE001 - the user's function; on_bad_record decides
                self.bad_records.add(record, error, part=self.part)
                self.items_count -= 1  # it is not in the result

    def get_state(self) -> Any:
        """What came of the records so far."""
        try:
            if isinstance(self._function, Function):
                check_data(self._accumulator)  # one that holds a list twice that holds a list twice … is endless
            encode({"accumulator": self._accumulator})
        except (EncodingError, LimitExceeded, TypeError) as error:
            raise ConfigurationError(
                None, f"the accumulator of reduce_function cannot be kept with the job: {error}"
            ) from error
        return {**super().get_state(), "accumulator": self._accumulator}

    def set_state(self, state: Any) -> None:
        """Go on from there."""
        super().set_state(state)
        self._accumulator = state["accumulator"]

    def finish_writing(self) -> None:
        """Say the result."""
        self.set_metadata("reduced_result", self._accumulator)
        self.logger.info("%d records reduced to %.1000r", self.items_count, self._accumulator)


def _callable(given: Any) -> Callable[[Any, Any], Any]:
    if callable(given):
        found: Callable[[Any, Any], Any] = given
        return found
    if not isinstance(given, str) or not set(".:") & set(given):
        raise ConfigurationError(None, f"function={given!r:.60}: give a callable, or a path like package.module.name")
    module, _, name = given.replace(":", ".").rpartition(".")
    try:
        value = getattr(importlib.import_module(module), name)
    except Exception as error:  # somebody else's module, and what it does when it is imported
        raise ConfigurationError(None, f"function={given!r} cannot be loaded: {error}") from error
    if not callable(value):
        raise ConfigurationError(None, f"function={given!r} cannot be called")
    return value  # type: ignore[no-any-return] # just looked at
