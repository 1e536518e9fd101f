"""A small file of two slots, written in turn: a kill in the middle of one leaves the other."""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from pathlib import Path
from zlib import crc32

from resilient_exporters.delivery.directory import sync_directory
from resilient_exporters.exporters.intent import read_at

__all__ = ["FIRST_SLOT", "SlotFile"]

_LOG = logging.getLogger(__name__)
_HEADER = struct.Struct("<8sII")  # magic, version, bytes per slot
_SLOT = struct.Struct("<IIQ")  # bytes of the payload, crc32 of the rest, sequence number
_MAGIC = b"RXRESUME"
_VERSION = 1
FIRST_SLOT = 16 << 10


class SlotFile:
    """One value in a file, replaced by one write; held with a lock while it is open.

    Made by ``take``. The file is ours alone (0600, no symbolic link, same owner), and what fails its checksum is as if
    it were not there.

    Attributes:
        path: where it is.
        value: the last one that was stored, None if there is none.
    """

    def __init__(self, path: Path, handle: int, *, durable: bool) -> None:
        self.path = path
        self.value: bytes | None = None
        self._handle = handle
        self._durable = durable
        self._size = FIRST_SLOT
        self._sequence = 0
        self._load()

    @classmethod
    def take(cls, path: Path, *, create: bool, durable: bool) -> SlotFile | None:
        """Open and lock the file.

        Args:
            path: where it is.
            create: whether it is made if it is missing.
            durable: whether ``store`` puts the value on disk before it returns.

        Returns:
            None if another holds it, it is of another user, or it is missing and not to be made.

        Raises:
            OSError: it cannot be made, or is a symbolic link.
        """
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        while True:
            try:
                handle = os.open(path, flags, 0o600)
            except (FileNotFoundError, PermissionError):
                if create and not path.exists():
                    raise
                return None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return None
            mine = os.fstat(handle)
            if path.exists() and path.lstat().st_ino == mine.st_ino:
                break
            os.close(handle)  # replaced while we waited at the door
        if mine.st_uid != os.geteuid():  # what another user put here proves nothing
            os.close(handle)
            return None
        return cls(path, handle, durable=durable)

    def store(self, value: bytes) -> None:
        """Replace the value."""
        if _SLOT.size + len(value) > self._size:
            self._grow(_SLOT.size + len(value))
        self._sequence += 1
        self._put(self._handle, value)
        self.value = value
        if self._durable:
            os.fdatasync(self._handle)

    def close(self) -> None:
        """Let go."""
        os.close(self._handle)

    def remove(self) -> None:
        """Delete the file and let go."""
        self.path.unlink(missing_ok=True)
        self.close()

    def _put(self, handle: int, value: bytes) -> None:
        checked = struct.pack("<Q", self._sequence) + value
        slot = struct.pack("<II", len(value), crc32(checked)) + checked
        place = _HEADER.size + (self._sequence % 2) * self._size
        if os.pwrite(handle, slot, place) != len(slot):
            raise OSError(f"{self.path}: short write")

    def _grow(self, needed: int) -> None:
        """Move to a file with larger slots; the last value goes along, so that there is always one that is whole."""
        before, self._size = self._size, 1 << (2 * needed - 1).bit_length()
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.unlink(missing_ok=True)
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(handle, _HEADER.pack(_MAGIC, _VERSION, self._size), 0)
            if self.value is not None:
                self._put(handle, self.value)
            if self._durable:
                os.fsync(handle)
            fresh.replace(self.path)
            if self._durable:
                sync_directory(self.path.parent)
        except OSError:
            self._size = before
            os.close(handle)
            raise
        os.close(self._handle)
        self._handle = handle

    def _load(self) -> None:
        """Read the slot with the highest number whose checksum is right; begin anew if there is none."""
        size = os.fstat(self._handle).st_size
        head = os.pread(self._handle, _HEADER.size, 0)
        if len(head) == _HEADER.size:
            magic, version, slot_size = _HEADER.unpack(head)
            if magic == _MAGIC and version == _VERSION and _SLOT.size < slot_size <= 1 << 30:
                self._size = slot_size
                for place in (0, 1):
                    self._read_slot(read_at(self._handle, slot_size, _HEADER.size + place * slot_size))
        if self.value is not None:
            return
        if size > _HEADER.size:
            _LOG.warning("%s is damaged: lines of the last write may be written twice", self.path)
        os.ftruncate(self._handle, 0)
        self._size = FIRST_SLOT
        os.pwrite(self._handle, _HEADER.pack(_MAGIC, _VERSION, FIRST_SLOT), 0)
        if self._durable:
            sync_directory(self.path.parent)  # else a power cut may take the file, whatever is synced in it

    def _read_slot(self, raw: bytes) -> None:
        if len(raw) < _SLOT.size:
            return
        length, checksum, sequence = _SLOT.unpack_from(raw)
        whole = len(raw) >= _SLOT.size + length and crc32(raw[8 : _SLOT.size + length]) == checksum
        if whole and sequence > self._sequence:
            self._sequence = sequence
            self.value = raw[_SLOT.size : _SLOT.size + length]
