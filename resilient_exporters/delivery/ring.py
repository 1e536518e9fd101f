"""The memory tier: one fixed file on tmpfs, mapped, that outlives the process.

::

    0       identity: magic, version, capacity, run, digest of the queue directory
    4096    slots: pairs of small states, each with a number and a checksum; the newer whole one of a pair counts
    ...     frames, round and round

A process killed at any instant leaves whole frames (a torn one fails its checksum) and one whole state per slot.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import secrets
import stat
import struct
import zlib
from pathlib import Path

from resilient_exporters.delivery.frame import FLAGS, HEAD, HEAD_SIZE, LENGTH, WRAP, Frame, scan
from resilient_exporters.errors import InvalidConfigError

__all__ = ["SLOTS", "SLOT_HEAD", "SLOT_SIZE", "Ring", "ring_path", "sweep"]

log = logging.getLogger("resilient_exporters")

_MAGIC = b"REXRING1"
_IDENTITY = struct.Struct("<8sIQ8s16sI")
_VERSION = 1
SLOTS = 33
"""One for the ring itself, the others for the targets."""
SLOT_SIZE = 1024
_SLOT_HEAD = struct.Struct("<IHQ")
SLOT_HEAD = _SLOT_HEAD.size
"""Of that, taken by number, length and checksum."""
_SLOTS_AT = 4096
_BASE = 73_728  # 4096 + 33 pairs of 1024, rounded up to a page
_CHUNK = 1 << 20
_SHM = Path("/dev/shm")  # noqa: S108 - tmpfs is the point; owner, links and header are checked before use


def ring_path(directory: Path) -> Path | None:
    """Where the ring of a queue directory lies, or None where there is no tmpfs."""
    if not _SHM.is_dir():
        return None
    return _SHM / f"resilient-exporters.{os.getuid()}.{_digest(directory).hex()}.ring"


class Ring:
    """A mapped file of frames and slots. One process has it at a time (the lock is the queue directory's).

    Args:
        path: the file, taken over if it is sound, else made anew; None for anonymous memory.
        capacity: bytes for frames.
        directory: the queue directory that it belongs to.

    Attributes:
        run: 8 bytes, new whenever what was in memory may have been lost: the first half of the records' ids.
        fresh: True if nothing was taken over.
        durable: True if the contents outlive the process.
        base, end: where frames lie in ``memory``.
    """

    def __init__(self, path: Path | None, capacity: int, directory: Path) -> None:
        self.path = path
        self.capacity = capacity
        self.run = secrets.token_bytes(8)
        self.fresh = True
        self.durable = False
        self.base = _BASE
        self._digest = _digest(directory)
        self._directory = directory
        self._numbers = [0] * SLOTS
        self._file = (0, 0)
        if path is not None:
            try:
                self._open_file(path)
                self.durable = True
            except OSError as error:
                log.warning("no shared memory at %s (%s): what waits in memory ends with this process", path, error)
        if not self.durable:
            # Nothing of a file that was known, but could not be mapped: ids of its run may be on their way.
            self.path, self.capacity, self.run = None, capacity, secrets.token_bytes(8)
            self.memory = _anonymous(capacity)
        self.end = self.base + self.capacity

    @property
    def lost(self) -> bool:
        """Whether somebody has removed the file, or put another in its place: the contents end with the process."""
        if self.path is None:
            return False
        try:
            info = self.path.lstat()
        except OSError:
            return True
        return (info.st_dev, info.st_ino) != self._file

    def renew(self) -> None:
        """Put the file where it was, with all it held. systemd removes a user's when the last session ends.

        Under the queue's lock: ``memory`` is another mapping afterwards.

        Raises:
            OSError: there is another one, or no room for it.
        """
        assert self.path is not None  # noqa: S101 - a ring without a file is never lost
        handle = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(handle, 0, len(self.memory))
            memory = mmap.mmap(handle, len(self.memory))
            info = os.fstat(handle)
        except OSError:
            self.path.unlink()
            raise
        finally:
            os.close(handle)
        # The identity last: a kill in between leaves a file that was never written.
        for at in range(_SLOTS_AT, len(memory), _CHUNK):
            memory[at : at + _CHUNK] = self.memory[at : at + _CHUNK]
        memory[:_SLOTS_AT] = self.memory[:_SLOTS_AT]
        self.memory, self._file = memory, (info.st_dev, info.st_ino)

    # -- states ------------------------------------------------------------------------------------------------

    def write_slot(self, index: int, state: bytes) -> bool:
        """Replace one small state. A kill in the middle leaves the old one. False if it does not fit."""
        if len(state) > SLOT_SIZE - _SLOT_HEAD.size:
            return False
        number = self._numbers[index] = self._numbers[index] + 1
        at = _SLOTS_AT + (2 * index + number % 2) * SLOT_SIZE
        body = struct.pack("<Q", number) + state
        head = _SLOT_HEAD.pack(zlib.crc32(body), len(state), number)
        self.memory[at : at + SLOT_HEAD + len(state)] = head + state
        return True

    def read_slot(self, index: int) -> bytes | None:
        """The newer whole state of a pair, or None."""
        best: tuple[int, bytes] | None = None
        for half in (0, 1):
            at = _SLOTS_AT + (2 * index + half) * SLOT_SIZE
            check, length, number = _SLOT_HEAD.unpack_from(self.memory, at)
            if not number or length > SLOT_SIZE - _SLOT_HEAD.size:
                continue
            state = self.memory[at + _SLOT_HEAD.size : at + _SLOT_HEAD.size + length]
            if zlib.crc32(struct.pack("<Q", number) + state) == check and (best is None or number > best[0]):
                best = (number, state)
        if best is None:
            return None
        self._numbers[index] = best[0]
        return best[1]

    def clear_slot(self, index: int) -> None:
        """Forget a pair."""
        at = _SLOTS_AT + 2 * index * SLOT_SIZE
        self.memory[at : at + 2 * SLOT_SIZE] = bytes(2 * SLOT_SIZE)
        self._numbers[index] = 0

    def start_over(self) -> None:
        """Forget everything: the next records must not get ids that were given before."""
        self.run = secrets.token_bytes(8)
        self.fresh = True
        self._numbers = [0] * SLOTS
        for at in range(_SLOTS_AT, len(self.memory), _CHUNK):
            self.memory[at : at + _CHUNK] = bytes(min(_CHUNK, len(self.memory) - at))
        self.memory[: _IDENTITY.size] = self._identity()

    # -- frames ------------------------------------------------------------------------------------------------

    def frames(self, position: int, offset: int, known: tuple[int, int]) -> list[Frame]:
        """All whole frames from ``position`` on, wherever the writer stopped.

        Args:
            position, offset: of the oldest frame, and of the record that it holds.
            known: position and next offset up to which frames are known to have been written; damage before it is
                stepped over, behind it the first frame that does not fit is the end.
        """
        tail, following = known
        with memoryview(self.memory) as view:
            found = self._walk(view, position, offset, known)
            if (found[-1].offset + 1 if found else offset) < following:
                # Damage hides the rest of what was known: what came after it begins at a place that is known too.
                found.extend(self._walk(view, tail, following, known))
        return found

    def _walk(self, view: memoryview, position: int, offset: int, known: tuple[int, int]) -> list[Frame]:
        found: list[Frame] = []
        tail, following = known
        wrapped = following > offset and tail <= position
        lost = 0
        for until in (self.end if wrapped else tail, tail):
            known_to = until if following > offset else position
            found.extend(scan(view, position, self.end, offset, known=known_to, lost=lost))
            if found:
                position, offset = found[-1].stop, found[-1].offset + 1
            ends = self.end - position < HEAD_SIZE or HEAD.unpack_from(view, position)[0] == WRAP
            if not (ends or wrapped):
                break
            lost, position, wrapped = self.end - position, self.base, False
        return found

    def wrap(self, position: int) -> None:
        """Mark that the frames go on at the beginning."""
        if self.end - position >= HEAD_SIZE:
            self.memory[position : position + HEAD_SIZE] = HEAD.pack(WRAP, 0)

    def close(self, *, keep: bool) -> None:
        """Unmap. ``keep`` False (nothing waits in it) cuts the file to its states, so that it holds no memory."""
        self.memory.close()
        if self.path is not None and not keep:
            try:
                os.truncate(self.path, _BASE)
            except OSError as error:
                log.debug("ring %s not cut: %s", self.path, error)

    # -- the file ----------------------------------------------------------------------------------------------

    def _open_file(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            handle = os.open(path, flags)
        except FileNotFoundError:
            handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            info = os.fstat(handle)
            ours = info.st_uid == os.getuid() and not info.st_mode & 0o077 and info.st_nlink == 1
            if not stat.S_ISREG(info.st_mode) or not ours:
                raise PermissionError(f"{path} is not a file of ours alone")
            head = os.pread(handle, _IDENTITY.size, 0) if info.st_size >= _BASE else b""
            known = self._identify(head, info.st_size)
            if not known and head.strip(b"\0"):
                handle = self._set_aside(path, handle, flags)
            # Before the size: a kill in between must not leave an identity that does not fit the file.
            os.pwrite(handle, self._identity() + os.fsencode(self._directory) + b"\0", 0)
            os.posix_fallocate(handle, 0, _BASE + self.capacity)  # a full tmpfs says so here, not by SIGBUS later
            try:
                self.memory = mmap.mmap(handle, _BASE + self.capacity)
            except OSError:
                os.ftruncate(handle, info.st_size)  # nobody would give back what a file holds that nobody can map
                raise
            info = os.fstat(handle)
            self._file = (info.st_dev, info.st_ino)
        finally:
            os.close(handle)
        self.fresh = not known

    def _identity(self) -> bytes:
        identity = _IDENTITY.pack(_MAGIC, _VERSION, self.capacity, self.run, self._digest, 0)[:-4]
        return identity + struct.pack("<I", zlib.crc32(identity))

    def _identify(self, head: bytes, size: int) -> bool:
        if len(head) < _IDENTITY.size:
            return False
        magic, version, capacity, run, digest, check = _IDENTITY.unpack(head)
        if magic == _MAGIC and version > _VERSION and check == zlib.crc32(head[:-4]):
            raise InvalidConfigError(
                None,
                f"the memory of this queue ({self.path}) was written by a newer version (format {version}, this one "
                f"reads {_VERSION}): upgrade resilient_exporters, or give another directory",
            )
        if magic != _MAGIC or version != _VERSION or digest != self._digest or check != zlib.crc32(head[:-4]):
            return False
        if size == _BASE:  # cut at an orderly close: only states are left, and the size is free to change
            self.run = run
        elif size >= _BASE + capacity:
            self.run, self.capacity = run, capacity
        else:
            return False
        return True

    def _set_aside(self, path: Path, handle: int, flags: int) -> int:
        for older in path.parent.glob(f"{path.stem}.*.damaged"):
            older.unlink()  # one is enough to look at: they take memory
        aside = path.with_suffix(f".{secrets.token_hex(4)}.damaged")
        log.warning("ring %s is not one of this queue or is damaged: set aside as %s", path, aside.name)
        path.rename(aside)
        fresh = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        os.close(handle)
        return fresh


def sweep() -> None:
    """Remove our rings that hold no records and whose queue directory is gone: they would lie there until a reboot."""
    for path in _SHM.glob(f"resilient-exporters.{os.getuid()}.*.ring"):
        try:
            directory = _empty_ring_of(path)
            if directory and not Path(os.fsdecode(directory)).exists():
                path.unlink()
        except OSError as error:
            log.debug("ring %s is left alone: %s", path, error)


def _empty_ring_of(path: Path) -> bytes:
    """The queue directory of a ring that holds no records, or nothing."""
    # Anyone may put anything there under that name: a pipe must not make us wait, a link not lead us elsewhere.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.getuid() or info.st_size != _BASE:
            return b""
        return os.pread(handle, _SLOTS_AT, 0)[_IDENTITY.size :].split(b"\0")[0]
    finally:
        os.close(handle)


def _anonymous(capacity: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, _BASE + capacity)
    except OSError as error:
        raise InvalidConfigError(
            None,
            f"max_memory={capacity}: this process gets no {capacity} bytes ({error.strerror}): give a smaller "
            "max_memory, or raise what limits the process (ulimit -v, a cgroup)",
        ) from error


def _digest(directory: Path) -> bytes:
    return hashlib.sha256(os.fsencode(os.path.realpath(directory))).digest()[:16]


assert FLAGS & LENGTH == 0  # noqa: S101 - a slip in the constants would corrupt every frame
