"""Entries that pycstbox left: pickles, read only when asked to, by an unpickler that makes plain values only."""

from __future__ import annotations

import io
import pickle  # nothing of ours is pickled; this reads what others left, with a table of what may be made
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from resilient_exporters.errors import EncodingError
from resilient_exporters.jobs.backlog import Backlog
from resilient_exporters.jobs.entry_file import read_whole
from resilient_exporters.jobs.errors import CorruptEntryError, JobIdError

__all__ = ["ImportReport", "import_old_entries", "old_entries", "parse_pickle"]

SUFFIX: Final = ".blog"
_IMPORTED: Final = ".imported"
_ALLOWED: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    **{("datetime", made.__name__): made for made in (date, datetime, time, timedelta, timezone)},
    **{(place, made.__name__): made for made in (set, frozenset, complex) for place in ("builtins", "__builtin__")},
    ("builtins", "bytearray"): bytearray,
    ("collections", "OrderedDict"): OrderedDict,
    ("decimal", "Decimal"): Decimal,
    ("uuid", "UUID"): UUID,
}
_OLDEST_OF_PYTHON_3: Final = 3


class ImportReport(msgspec.Struct):
    """What became of old entries.

    Attributes:
        imported: ids that are entries now; the old file has ``.imported`` at its end.
        refused: file to why it was left as it is.
    """

    imported: list[str] = []
    refused: dict[str, str] = {}


def old_entries(backlog: Backlog, directory: Path | None = None) -> list[Path]:
    """The ``.blog`` files that wait to be imported, in the backlog's own directory unless another is given."""
    return sorted((directory or backlog.directory).glob(f"*{SUFFIX}"))


def import_old_entries(backlog: Backlog, directory: Path | None = None) -> ImportReport:
    """Turn ``.blog`` pickles into entries.

    No class or function is looked up by a name in the file, except for dates, times, decimals, UUIDs, sets and ordered
    dictionaries. A file that names anything else is refused and stays where it is.

    Args:
        backlog: gets the entries.
        directory: where the files are. Default: the directory of the backlog.
    """
    report = ImportReport()
    for path in old_entries(backlog, directory):
        job_id = path.name.removesuffix(SUFFIX)
        try:
            if job_id in backlog:
                report.refused[str(path)] = f"an entry {job_id} waits already"
                continue
            backlog[job_id] = parse_pickle(read_whole(path))
        except (CorruptEntryError, EncodingError, JobIdError) as error:
            report.refused[str(path)] = str(error)
            continue
        path.replace(path.with_name(path.name + _IMPORTED))
        report.imported.append(job_id)
    return report


def parse_pickle(data: bytes) -> Any:
    """The plain values in a pickle. Texts of Python 2 become str.

    Raises:
        CorruptEntryError: it is none, or names something that is not allowed.
    """
    old = not (data[:1] == b"\x80" and data[1:2] >= bytes([_OLDEST_OF_PYTHON_3]))
    try:
        value = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        return _as_text(value) if old else value
    except CorruptEntryError:
        raise
    except Exception as error:
        raise CorruptEntryError(None, f"it is no pickle of plain values: {error!r}") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module, name))
        if allowed is None:
            raise CorruptEntryError(None, f"it names {module}.{name}, which is not made from a file")
        return allowed

    def persistent_load(self, pid: Any) -> Any:
        raise CorruptEntryError(None, f"it refers to {pid!r:.40} elsewhere")


def _as_text(value: Any) -> Any:
    """What Python 2 called str, and meant as text nearly always."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")
    if isinstance(value, dict):
        return {_as_text(key): _as_text(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(_as_text(one) for one in value)
    return value
