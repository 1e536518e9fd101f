"""What all writers have in common that put files into a store."""

from __future__ import annotations

import os
import posixpath
import shutil
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.errors import ConfigurationError, InconsistentWriteState, PipelineError
from resilient_exporters.pipeline.retries import LONG, retrying, wait
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.pipeline.writers.filebase import BaseFilebaseWriter
from resilient_exporters.policy import RetryPolicy

__all__ = ["BaseStoreWriter", "needed"]

_T = TypeVar("_T")
_CHUNK: Final = 1 << 20


class BaseStoreWriter(BaseFilebaseWriter):
    """Puts finished files into a store, each under its name and never a part of it.

    A subclass defines ``put`` and ``size_of``.

    Attributes:
        policy: waits and attempts.
        hopeless: errors that another attempt does not mend.
        sleep: waits so many seconds between two attempts, unless the run is to stop.
    """

    sleep: Callable[[float], None] = staticmethod(wait)

    policy: ClassVar[RetryPolicy] = LONG
    hopeless: ClassVar[tuple[type[Exception], ...]] = (
        FileNotFoundError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
        PipelineError,
        ConfigurationError,
        MissingModuleError,
    )

    @abstractmethod
    def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
        """Let a file appear in the store: whole, or not at all. May be called again with the same one.

        Args:
            path: of the file here.
            name: its name, after ``filebase``.
            packed: what is known of it; None: a file of the run itself, such as that of the MD5s.
        """

    @abstractmethod
    def size_of(self, name: str) -> int | None:
        """The size of a file in the store; None: it is not there."""

    def reach(self) -> None:
        """See whether the store can be written to, before anything is read."""

    def verify(self, packed: PackedFile) -> None:
        """See whether a file arrived.

        Raises:
            InconsistentWriteState: it did not, or not whole.
        """
        self._check_size(packed.name, packed.size)

    def _check_size(self, name: str, expected: int) -> None:
        size = self.size_of(name)
        if size != expected:
            found = "is not there" if size is None else f"has {size} bytes"
            raise InconsistentWriteState(
                None, f"{self.shown(name)} {found} and should have {expected}: "
                "somebody else writes there, or the store lost it"
            )  # fmt: skip

    # -- when ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """See whether the store can be reached."""
        self.attempt(self.reach, f"reaching {self.shown(self.filebase.template)}")

    def deliver(self, packed: PackedFile, path: Path) -> None:
        """Put a finished file into the store."""
        name = self.shown(packed.name)
        self.attempt(lambda: self.put(path, packed.name, packed), f"writing {name}")
        if self.check_consistency:
            self.attempt(lambda: self.verify(packed), f"checking {name}")
        self.logger.info("saved %s: %d records, %d bytes, MD5 %s", name, packed.records, packed.size, packed.md5)

    def deliver_md5(self, path: Path, name: str) -> None:
        """Put the file of MD5s into the store."""
        self.attempt(lambda: self.put(path, name, None), f"writing {self.shown(name)}")

    def write_stream(self, name: str, stream: Any) -> None:
        """Copy a stream as it is to a file in the directory of ``filebase``; by way of the disk of this machine.

        Args:
            name: of the file there; it may have directories.
            stream: to be read to its end.
        """
        path = self.workplace.path / "stream"
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file, _CHUNK)
            file.flush()
            os.fsync(file.fileno())
        target = posixpath.join(self.filebase.base, name)
        self.attempt(lambda: self.put(path, target, None), f"writing {self.shown(target)}")
        if self.check_consistency:
            self.attempt(lambda: self._check_size(target, path.stat().st_size), f"checking {self.shown(target)}")
        path.unlink()

    def attempt(self, function: Callable[[], _T], what: str) -> _T:
        """Do something with the store, several times if need be.

        Raises:
            PipelineError: it does not work.
        """
        try:
            return retrying(function, what, self.policy, unless=self.hopeless, sleep=self.sleep)
        except (PipelineError, ConfigurationError, MissingModuleError):
            raise
        except Exception as error:
            raise PipelineError(None, f"{what} failed: {type(error).__name__}: {error}") from error

    def temporary(self, name: str, packed: PackedFile | None) -> str:
        """Where a file lies until it is whole; the same place when it is put again."""
        number = "md5" if packed is None else f"{packed.number:08d}"
        return posixpath.join(posixpath.dirname(name), f".{self.token}-{number}.part")


def needed(module: str, extra: str, owner: object) -> Any:
    """An optional module.

    Raises:
        MissingModuleError: it is not installed, with what to install.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingModuleError(
            None, f"{type(owner).__name__} needs {error.name}: pip install 'resilient-exporters[{extra}]'"
        ) from error
