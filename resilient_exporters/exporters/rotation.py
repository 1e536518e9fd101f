"""Files set aside when they are full or old: ``name.000001``, ``name.000002``, … the highest is the newest."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from resilient_exporters.delivery.directory import sync_directory
from resilient_exporters.errors import InvalidConfigError, MissingModuleError
from resilient_exporters.units import parse_choice, parse_count, parse_seconds, parse_size

__all__ = ["Rotation"]

_LOG = logging.getLogger(__name__)
_SUFFIXES = {"gzip": ".gz", "zstd": ".zst"}
_PERIODS = {"hourly": "%Y%m%d%H", "daily": "%Y%m%d", "monthly": "%Y%m"}


class Rotation:
    """When a file is set aside, under which name, and for how long it is kept.

    A number, not a time, is in the name: it grows whatever the clock does, and one rename is all it takes, so that a
    kill at any instant loses and doubles nothing.

    Args:
        max_bytes: bytes, or a text such as "10 MB" (10^6) or "10 MiB" (2^20): set aside before a write that would
            pass this size; None: never by size.
        every: seconds, ``timedelta``, "hourly", "daily" or "monthly" (local time): set aside before the first write
            of another period than that of the last one. Seconds count from 1970 in UTC. None: never by time.
        keep: how many are kept, None: all. Older ones are deleted.
        compress: "gzip", "zstd" or None.

    Raises:
        InvalidConfigError: a value that cannot be.
        MissingModuleError: "zstd" without zstandard.
    """

    def __init__(
        self,
        *,
        max_bytes: int | str | None,
        every: float | str | timedelta | None,
        keep: int | None,
        compress: str | None,
    ) -> None:
        self._compress = None if compress is None else parse_choice(compress, "compress", _SUFFIXES)
        if self._compress == "zstd":
            _zstandard()
        self.max_bytes = None if max_bytes is None else parse_size(max_bytes, "rotate_bytes")
        if self.max_bytes == 0:
            raise InvalidConfigError(f"rotate_bytes={max_bytes!r} is not possible; give a size above 0, or None")
        self._every: str | float | None
        if isinstance(every, str):
            self._every = parse_choice(every, "rotate_every", _PERIODS)
        else:
            self._every = parse_seconds(every, "rotate_every", none_ok=True, zero_ok=False)
        self._keep = parse_count(keep, "keep", minimum=0, none_ok=True)

    def is_due(self, status: os.stat_result, incoming: int) -> bool:
        """Whether the file is set aside before ``incoming`` more bytes go to it."""
        if not status.st_size:
            return False
        if self.max_bytes is not None and status.st_size + incoming > self.max_bytes:
            return True
        # Only forward: a clock that starts in 1970 at every boot would else rotate twice each time.
        return self._every is not None and self._number(time.time()) > self._number(status.st_mtime)

    def set_aside(self, target: Path) -> None:
        """Give the file its number. The caller holds its lock."""
        target = Path(os.path.realpath(target))
        number = 1 + max(_rotated(target), default=0)
        target.rename(target.with_name(f"{target.name}.{number:06}"))
        with contextlib.suppress(FileNotFoundError):
            sync_directory(target.parent)

    def tidy(self, target: Path) -> None:
        """Compress and delete what is due, and finish what an earlier process began. Never raises for the disk."""
        target = Path(os.path.realpath(target))
        try:
            rotated = _rotated(target)
            for number in sorted(rotated)[: max(0, len(rotated) - self._keep) if self._keep is not None else 0]:
                for path in rotated.pop(number):
                    path.unlink(missing_ok=True)
            for paths in rotated.values():
                self._tidy_one(target, paths)
        except OSError as error:
            _LOG.warning("%s: rotated files could not be put in order (%s); tried again later", target, error)

    def _tidy_one(self, target: Path, paths: list[Path]) -> None:
        plain = [path for path in paths if path.suffix not in {".gz", ".zst"}]
        if plain and len(paths) > 1:
            plain[0].unlink(missing_ok=True)  # a kill came after its packed copy had its name, which is complete
        elif plain and self._compress is not None:
            self._pack(target, plain[0])

    def _pack(self, target: Path, plain: Path) -> None:
        packed = plain.with_name(plain.name + _SUFFIXES[self._compress or "gzip"])
        draft = target.with_name(f".{packed.name}.draft")
        with plain.open("rb") as source:
            try:
                fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # another process is at it
            if not plain.exists():
                return
            try:
                with draft.open("wb") as raw:
                    os.fchmod(raw.fileno(), os.fstat(source.fileno()).st_mode & 0o777)
                    with self._packer()(raw) as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                    raw.flush()
                    os.fsync(raw.fileno())
                draft.rename(packed)
            except OSError:
                draft.unlink(missing_ok=True)
                raise
            sync_directory(packed.parent)
            plain.unlink(missing_ok=True)

    def _packer(self) -> Callable[[IO[bytes]], contextlib.AbstractContextManager[Any]]:
        if self._compress == "gzip":
            return lambda raw: gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6)
        compressor = _zstandard().ZstdCompressor(level=3, write_checksum=True)
        return lambda raw: compressor.stream_writer(raw, closefd=False)

    def _number(self, seconds: float) -> int:
        """The period that a wall-clock time falls in."""
        if isinstance(self._every, str):
            return int(time.strftime(_PERIODS[self._every], time.localtime(seconds)))
        return int(seconds // (self._every or 1))


def _rotated(target: Path) -> dict[int, list[Path]]:
    """The files set aside, by number; one number may stand there plain and packed."""
    pattern = re.compile(re.escape(target.name) + r"\.(\d{6,})(\.gz|\.zst)?")
    found: dict[int, list[Path]] = {}
    for entry in os.scandir(target.parent):
        match = pattern.fullmatch(entry.name)
        if match:
            found.setdefault(int(match[1]), []).append(target.with_name(entry.name))
    return found


def _zstandard() -> Any:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise MissingModuleError('compress="zstd" needs zstandard: pip install "resilient-exporters[fast]"') from error
    return zstandard
