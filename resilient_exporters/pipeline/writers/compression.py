"""How files are packed."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, cast

from resilient_exporters.pipeline.errors import UnsupportedCompressionFormat

__all__ = ["COMPRESSIONS", "Counted", "check_compression", "compressing"]

COMPRESSIONS: Final = ("gz", "bz2", "zip", "none")
_LEVEL: Final = 6  # of gz: 9 takes twice as long for one part in a hundred
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def check_compression(value: str) -> str:
    """The compression, if there is one of that name.

    Raises:
        UnsupportedCompressionFormat: there is not.
    """
    if value not in COMPRESSIONS:
        raise UnsupportedCompressionFormat(None, f"compression={value!r} is none of {', '.join(COMPRESSIONS)}")
    return value


@contextlib.contextmanager
def compressing(target: Counted, compression: str, name: str) -> Iterator[Any]:
    """A file to write to, whose bytes arrive at the target compressed; the same bytes for the same data.

    Args:
        target: where to.
        compression: one of ``COMPRESSIONS``.
        name: that a zip shows for what is in it.
    """
    if compression == "gz":
        with gzip.GzipFile("", "wb", _LEVEL, target, mtime=0) as packed:
            yield packed
    elif compression == "bz2":
        with bz2.BZ2File(target, "wb") as packed_bz2:
            yield packed_bz2
    elif compression == "zip":
        entry = zipfile.ZipInfo(name, _EPOCH)
        entry.compress_type = zipfile.ZIP_DEFLATED
        with (
            zipfile.ZipFile(cast("BinaryIO", target), "w") as archive,
            archive.open(entry, "w", force_zip64=True) as packed_zip,
        ):
            yield packed_zip
    else:
        yield target


class Counted:
    """A file that is written from its beginning to its end, with its size and MD5.

    Attributes:
        size: bytes so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.md5(usedforsecurity=False)
        self.size = 0

    @property
    def md5(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()

    def write(self, data: Any) -> int:
        """Write."""
        view = memoryview(data)
        self._digest.update(view)
        self._file.write(view)
        self.size += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        """Hand it to the system."""
        self._file.flush()
