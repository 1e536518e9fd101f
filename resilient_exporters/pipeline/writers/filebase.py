"""Writers whose files have names after ``filebase``."""

from __future__ import annotations

import datetime as dt
import os
import posixpath
from pathlib import Path
from typing import Any, Final

from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.writers.buffer_log import Buffer
from resilient_exporters.pipeline.writers.buffered import BaseBufferedWriter, PackedFile
from resilient_exporters.pipeline.writers.naming import Filebase, Names

__all__ = ["BaseFilebaseWriter"]

_MD5_FILE: Final = "md5checksum.md5"


class BaseFilebaseWriter(BaseBufferedWriter):
    """Gathers records in files that are named after ``filebase``.

    A subclass defines ``write(dump_path, group_key=None, file_name=None)``: it gets a finished file, its group and the
    last part of its name; ``create_filebase_name`` gives the directory.

    Attributes:
        filebase: with the date and time at which the run began.
        written_files: path at the target to MD5, of all files of the run.
        last_written_file: the path of the last one.
    """

    supported_options = {
        "filebase": Option(
            type=str,
            help="Path and beginning of the names: may hold %Y and the like, {file_number} and {groups[0]}.",
        ),
        "start_file_count": Option(type=int, default=0, help="Number of the first file of each group."),
        "generate_md5": Option(
            type=bool, default=False, help="Write md5checksum.md5 beside the files, a line 'hash path' for each."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.generate_md5: bool = self.read_option("generate_md5")
        self._start: int = self.read_option("start_file_count")
        if self._start < 0:
            raise ConfigurationError(None, f"start_file_count={self._start}: give 0 or more")
        self.filebase = self._filebase()
        self.names = Names(self.filebase, self._start, self.token)
        self.written_files: dict[str, str] = {}
        self.last_written_file: str | None = None
        self._entries: list[dict[str, Any]] = []
        self.set_metadata("effective_filebase", self.filebase.template)

    def _filebase(self) -> Filebase:
        now = dt.datetime.now()  # noqa: DTZ005 - names have the local date, as ever
        return Filebase(self.template(self.read_option("filebase")), now)

    # -- what a subclass may change ------------------------------------------------------------------------------

    def template(self, filebase: str) -> str:
        """The option as it is used: for a store that has its own idea of the beginning."""
        return filebase

    def shown(self, name: str) -> str:
        """How a file at the target is called in figures and in the MD5 file."""
        return name

    def deliver(self, packed: PackedFile, path: Path) -> None:
        """Take a finished file to where it belongs; called again after a crash."""
        self.write(str(path), tuple(packed.group), file_name=posixpath.basename(packed.name))

    def write(self, dump_path: str, group_key: Any = None, file_name: str | None = None) -> None:
        """Take a finished file to where it belongs.

        Args:
            dump_path: of the file; it is removed afterwards.
            group_key: group of its records, a tuple; empty: none.
            file_name: the last part of its name.
        """
        raise NotImplementedError(f"{type(self).__name__} must define write(dump_path, group_key=None, file_name=None)")

    def deliver_md5(self, path: Path, name: str) -> None:
        """Take the file of MD5s to where it belongs."""
        self.write(str(path), (), file_name=posixpath.basename(name))

    # -- names ---------------------------------------------------------------------------------------------------

    def name_of(self, buffer: Buffer) -> str:
        """The next name of its group."""
        return self.names.next(buffer.key) + self.extension

    def opened(self, buffer: Buffer) -> None:
        """See whether there are as many groups as the names ask for: now, and not when the buffer is full.

        Raises:
            PipelineError: there are not.
        """
        self.filebase.name(buffer.key, 0, self.token)

    def create_filebase_name(
        self, group_info: Any, extension: str | None = None, file_name: str | None = None
    ) -> tuple[str, str]:
        """Directory and name of a file of a group."""
        groups = [str(value) for value in group_info or ()]
        directory = posixpath.dirname(self.filebase.name(groups, 0, self.token)) if groups else self.filebase.base
        return directory, file_name or f"{self.filebase.prefix}.{extension or 'gz'}"

    # -- files ---------------------------------------------------------------------------------------------------

    def entry_of(self, buffer: Buffer, packed: PackedFile) -> Any:
        """Name, number and figures of a file."""
        stem = packed.name.removesuffix(self.extension)
        return {
            "given": self.names.entry(buffer.key, stem),
            "name": packed.name,
            "records": packed.records,
            "size": packed.size,
            "md5": packed.md5,
        }

    def note(self, entry: Any) -> None:
        """A file was finished, in this run or before it was resumed."""
        super().note(entry)
        self.names.restore(entry["given"])
        self._entries.append(entry)
        self.last_written_file = self.shown(entry["name"])
        self.written_files[self.last_written_file] = entry["md5"]

    def finish_writing(self) -> None:
        """Write the file of MD5s; sum up."""
        super().finish_writing()
        self.update_metadata(
            {
                "effective_filebase": self.filebase.template,
                "files_written": [
                    {
                        "filename": self.shown(entry["name"]),
                        "number_of_records": entry["records"],
                        "size": entry["size"],
                        "hash": entry["md5"],
                    }
                    for entry in self._entries
                ],
            }
        )
        if self.generate_md5 and self._entries:
            path = self.workplace.path / _MD5_FILE
            with path.open("w", encoding="utf-8") as file:
                file.writelines(f"{md5} {name}\n" for name, md5 in self.written_files.items())
                file.flush()
                os.fsync(file.fileno())
            self.deliver_md5(path, posixpath.join(self.filebase.base, _MD5_FILE))
            path.unlink()

    # -- state ---------------------------------------------------------------------------------------------------

    def get_state(self) -> Any:
        """Names, too."""
        return {**super().get_state(), "filebase": self.filebase.template}

    def set_state(self, state: Any) -> None:
        """Go on with these names: those of the day on which the run began."""
        super().set_state(state)
        self.filebase = Filebase(state["filebase"])
        self.names.go_on(self.filebase, self.token)
        self.set_metadata("effective_filebase", self.filebase.template)
