"""The options of a queue and of its deliveries, checked once."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.policy import RetryPolicy
from resilient_exporters.units import parse_choice, parse_count, parse_rate, parse_seconds, parse_size

__all__ = ["DRAINS", "ON_FULL", "Default", "Settings"]

ON_FULL = ("drop_oldest", "drop_newest", "block", "raise")
DRAINS = ("fifo", "newest_first", "balanced")
_SMALLEST_MEMORY = 64 * 1024
_MOST_MEMORY = sys.maxsize // 2  # 1 GB where addresses have 32 bits: the program needs some of them, too
_SMALLEST_DISK = 256 * 1024
_MOST_RECORDS = 1 << 19  # a block's key has 20 bits for its count


class Default:
    """What an option is where nothing else is said. Those that are not here are None, or off."""

    loss_window: Final = 1.0
    max_memory: Final = "16 MB"
    max_disk: Final = "512 MB"
    min_free_disk: Final = "64 MB"
    on_full: Final = "drop_oldest"
    batch_records: Final = 500
    batch_bytes: Final = "1 MB"
    linger: Final = 0.005
    drain: Final = "fifo"
    max_dead: Final = 10_000


@dataclass(frozen=True)
class Settings:
    """What ``Exporter`` was given, in base units: bytes, seconds, counts."""

    loss_window: float | None
    max_records: int | None
    max_memory: int
    max_disk: int
    min_free_disk: int
    max_age: float | None
    on_full: str
    full_timeout: float | None
    batch_records: int
    batch_bytes: int
    linger: float
    retry: RetryPolicy
    manual: bool
    drain: str
    drain_rate: tuple[float, str] | None
    max_dead: int
    save_unsent: bool
    directory: Path | None

    @classmethod
    def check(
        cls,
        *,
        loss_window: float | timedelta | None = Default.loss_window,
        max_records: int | None = None,
        max_memory: int | str = Default.max_memory,
        max_disk: int | str = Default.max_disk,
        min_free_disk: int | str = Default.min_free_disk,
        max_age: float | timedelta | None = None,
        on_full: str = Default.on_full,
        full_timeout: float | timedelta | None = None,
        batch_records: int = Default.batch_records,
        batch_bytes: int | str = Default.batch_bytes,
        linger: float | timedelta = Default.linger,
        retry: Any = None,
        manual: bool = False,
        drain: str = Default.drain,
        drain_rate: Any = None,
        max_dead: int = Default.max_dead,
        save_unsent: bool = True,
        directory: str | os.PathLike[str] | None = None,
    ) -> Settings:
        """Turn options into settings.

        Raises:
            InvalidConfigError: naming the option, its value and what would be right.
        """
        window = parse_seconds(loss_window, "loss_window", none_ok=True)
        if window is not None and not math.isfinite(window):
            raise InvalidConfigError(None, "loss_window=inf promises nothing: give seconds, or None for memory only")
        batch = parse_count(batch_records, "batch_records")
        if batch > _MOST_RECORDS:
            raise InvalidConfigError(None, f"batch_records={batch_records!r} is too much: at most {_MOST_RECORDS}")
        for name, value in (("manual_reexport", manual), ("save_unsent_data", save_unsent)):
            if not isinstance(value, bool):
                raise InvalidConfigError(None, f"{name}={value!r} is no bool: give True or False")
        return cls(
            loss_window=window,
            max_records=parse_count(max_records, "max_records", none_ok=True),
            max_memory=_mapped(
                _at_least(parse_size(max_memory, "max_memory"), _SMALLEST_MEMORY, "max_memory", max_memory), max_memory
            ),
            max_disk=_at_least(parse_size(max_disk, "max_disk"), _SMALLEST_DISK, "max_disk", max_disk),
            min_free_disk=parse_size(min_free_disk, "min_free_disk"),
            max_age=parse_seconds(max_age, "max_age", none_ok=True, zero_ok=False),
            on_full=parse_choice(on_full, "on_full", ON_FULL),
            full_timeout=parse_seconds(full_timeout, "full_timeout", none_ok=True),
            batch_records=batch,
            batch_bytes=_at_least(parse_size(batch_bytes, "batch_bytes"), 1, "batch_bytes", batch_bytes),
            linger=parse_seconds(linger, "linger") or 0.0,
            retry=RetryPolicy.parse(retry),
            manual=manual,
            drain=parse_choice(drain, "drain", DRAINS),
            drain_rate=None if drain_rate is None else parse_rate(drain_rate, "drain_rate"),
            max_dead=parse_count(max_dead, "max_dead", minimum=0) or 0,
            save_unsent=save_unsent,
            directory=None if directory is None else check_directory(directory),
        )


def _at_least(size: int, least: int, option: str, given: object) -> int:
    if size < least:
        raise InvalidConfigError(None, f"{option}={given!r} is too little: give at least {least} bytes")
    return size


def _mapped(size: int, given: object) -> int:
    if size > _MOST_MEMORY:
        raise InvalidConfigError(
            None, f"max_memory={given!r} is more than this Python can map: give at most {_MOST_MEMORY} bytes"
        )
    return size


def _may_pass(path: Path, here: Path) -> bool:
    """Whether it was writable once: a card that failed and is mounted read-only, a queue whose owner was changed.

    The program must start then, and serve from memory.
    """
    if os.statvfs(here).f_flag & os.ST_RDONLY or os.path.lexists(path / "lock"):
        return True
    return here == path and not os.access(path, os.X_OK)  # nobody can tell what is in it


def check_directory(value: object, option: str = "directory") -> Path:
    """A directory given by hand, or what is wrong with it. Looks, but makes nothing."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise InvalidConfigError(None, f"{option}={value!r} is no path: give the queue directory as str or Path")
    path = Path(os.fsdecode(value)).expanduser().absolute()
    here = path
    while not os.path.exists(here):  # noqa: PTH110 - unlike Path.exists it says no where nobody may look
        here = here.parent
    if not here.is_dir():
        raise InvalidConfigError(None, f"{option}={str(value)!r}: {here} is no directory")
    if not os.access(here, os.W_OK | os.X_OK) and not _may_pass(path, here):
        raise InvalidConfigError(None, f"{option}={str(value)!r}: {here} is not writable for this user")
    return path
