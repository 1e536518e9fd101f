"""ToCSV: an input as a CSV file, whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from resilient_exporters.tasks.errors import TaskError
from resilient_exporters.tasks.frames import frame_kind, write_csv
from resilient_exporters.tasks.placeholder import REQUIRED_ATTRIBUTE, resolve
from resilient_exporters.tasks.task import BaseTask, formatted

__all__ = ["ToCSV"]


class ToCSV(BaseTask, abstract=True):
    """Write an input to a CSV file. It is written aside and renamed: there is a whole file, or none.

    Attributes:
        filename: where to; ``{name}`` is a format keyword. What ends in ``.gz`` is compressed.
        input: a DataFrame, or rows (mappings).
        overwrite_if_exists: whether a file may be replaced.
        params: of pandas' ``to_csv``; for rows and polars a part of them, see ``frames.write_csv``.
    """

    formatted_attributes = ("filename",)
    filename: Any = REQUIRED_ATTRIBUTE
    input: Any = REQUIRED_ATTRIBUTE
    overwrite_if_exists: ClassVar[bool] = False
    params: Any = {"index": False}  # noqa: RUF012 - replaced by a subclass, never changed

    def run(self) -> None:
        """Write it."""
        path = Path(formatted(self, self.filename, "filename"))
        if path.exists() and not self.overwrite_if_exists:
            raise TaskError(f"the file {path} exists; set overwrite_if_exists = True to replace it")
        params = dict(resolve(self.params))
        if "a" in params.get("mode", "w"):
            if frame_kind(self.input) != "pandas":
                raise TaskError("params mode 'a' is possible with a pandas DataFrame only")
            self.input.to_csv(path, **params)
            return
        self._write(path, params)

    def _write(self, path: Path, params: Mapping[str, Any]) -> None:
        # The suffix stays: pandas chooses the compression by it.
        number, aside = tempfile.mkstemp(prefix=".new-", suffix=path.name, dir=path.parent)
        try:
            with open(number, "wb") as file:  # noqa: PTH123 - it has a number already
                if frame_kind(self.input) == "pandas":
                    self.input.to_csv(aside, **params)
                    count = len(self.input)
                elif path.suffix == ".gz":
                    with gzip.GzipFile(filename="", fileobj=file, mode="wb") as packed:
                        count = write_csv(self.input, packed, params)
                else:
                    count = write_csv(self.input, file, params)
                file.flush()
                os.fsync(number)
            Path(aside).chmod(_mode())
            Path(aside).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(aside).unlink()
            raise
        self.logger.debug("%s rows written to %s", count, path)


def _mode() -> int:
    """What a new file would get; a temporary one is for its owner only."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
