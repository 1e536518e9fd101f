"""A claim on an entry: held by the one process that runs it, and the note of how that went.

The note lies in the locked file itself and is changed in place, so that the instant between the success of a job and
the note of it is that of one system call.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from resilient_exporters.delivery.directory import make_directory, sync_directory

__all__ = ["Claim", "ClaimState", "read_state"]

_OPEN: Final = b"open\n"
_DONE: Final = b"done\n"
_LONGEST_ERROR: Final = 500
_MOST: Final = 4096


class ClaimState(msgspec.Struct):
    """What is known of an entry beside its parameters.

    Attributes:
        done: it has succeeded and must never run again.
        entry: digest of the file that was run: another one under the same id is another job.
        attempts: runs that were begun.
        born: when it was first claimed, in seconds of the backlog's own clock; None: not yet.
        code: result of the last run that ended.
        error: what that run said.
        ran: when the last run began, for people.
        finished: boot and monotonic seconds of the success.
        sending: exporter to where its queue stood when rows were begun to be queued (None: that is over), and how many
            were queued before.
    """

    done: bool = False
    entry: str | None = None
    attempts: int = 0
    born: float | None = None
    code: int = 0
    error: str = ""
    ran: str = ""
    finished: tuple[str, float] | None = None
    sending: dict[str, tuple[str | None, int]] = {}


class Claim:
    """Made by ``take``; holds the lock until ``release`` or the end of the process.

    Args:
        path: of the file.
        handle: open and locked.
    """

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle
        self.state = _parse(os.pread(handle, _MOST, 0))

    @classmethod
    def take(cls, path: Path) -> Claim | None:
        """Claim an entry; None if somebody else has it.

        Raises:
            OSError: the file cannot be made.
        """
        make_directory(path.parent)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return None
            except BaseException:
                os.close(handle)
                raise
            with suppress(FileNotFoundError):
                here, ours = path.lstat(), os.fstat(handle)
                if (here.st_dev, here.st_ino) == (ours.st_dev, ours.st_ino):
                    return cls(path, handle)
            os.close(handle)  # it was removed by whoever had it: look again

    def keep(self) -> None:
        """Put the state on disk."""
        fresh = not os.fstat(self._handle).st_size
        self._write()
        os.fsync(self._handle)
        if fresh:
            sync_directory(self.path.parent)

    def finish(self, finished: tuple[str, float]) -> None:
        """Note the success: a kill cannot undo the first instruction, a power cut cannot undo the last.

        Raises:
            OSError: the disk does not take it.
        """
        os.pwrite(self._handle, _DONE, 0)
        self.state.done, self.state.finished = True, finished
        self.keep()

    def remove(self) -> None:
        """Forget it: nothing of the entry is left, or it begins anew."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def release(self) -> None:
        """Let others have it."""
        if self._handle >= 0:
            fcntl.flock(self._handle, fcntl.LOCK_UN)  # a child of the job may have inherited the lock
            os.close(self._handle)
            self._handle = -1

    def _write(self) -> None:
        self.state.error = self.state.error[:_LONGEST_ERROR].encode("utf-8", "replace").decode()
        mark = _DONE if self.state.done else _OPEN
        os.pwrite(self._handle, mark + msgspec.json.encode(self.state) + b"\n", 0)


def read_state(path: Path) -> ClaimState:
    """What a claim says, without taking it."""
    try:
        return _parse(path.read_bytes()[:_MOST])
    except OSError:
        return ClaimState()


def _parse(data: bytes) -> ClaimState:
    mark, line = data[: len(_OPEN)], data[len(_OPEN) :].partition(b"\n")[0]
    try:
        state = msgspec.json.decode(line, type=ClaimState)
    except (msgspec.DecodeError, UnicodeDecodeError):
        state = ClaimState()  # torn by a power cut: the entry begins anew, but a success stays one
    state.done = mark == _DONE
    return state
