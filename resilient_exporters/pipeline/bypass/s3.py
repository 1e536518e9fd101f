"""Objects copied from bucket to bucket by S3 itself."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Mapping
from typing import Any, Final

from resilient_exporters.pipeline.bypass.base import BaseBypass, Copied, class_of
from resilient_exporters.pipeline.bypass.stream import Counted, class_names
from resilient_exporters.pipeline.errors import InconsistentWriteState, RequisitesNotMet
from resilient_exporters.pipeline.retries import LONG, retrying

__all__ = ["S3Bypass"]

_WHOLE: Final = 5 << 30  # bytes that S3 copies in one request
_KMS: Final = "aws:kms"


class S3Bypass(BaseBypass):
    """Lets S3 copy the objects: nothing passes this machine. Their metadata goes with them.

    Each copy is checked: by the etag where it stands for the content, else by the size. Where the writer's account may
    not read the source, or the two are different services, the object is read and written again. The copies lie in the
    directory of ``filebase``, under the last part of their keys.
    """

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """See whether it can be taken.

        Raises:
            RequisitesNotMet: it cannot.
        """
        super().check(config)
        if "S3Reader" not in class_names(class_of(config, "reader")):
            raise RequisitesNotMet(None, "the reader is no S3Reader")
        if "S3Writer" not in class_names(class_of(config, "writer")):
            raise RequisitesNotMet(None, "the writer is no S3Writer")

    def copy(self, name: str, target: str) -> Copied:
        """Copy an object."""
        hopeless = (FileNotFoundError, PermissionError)
        return retrying(
            lambda: self._once(name, target), f"copying {name}", LONG, errors=(OSError, InconsistentWriteState),
            unless=hopeless,
        )  # fmt: skip

    def _once(self, name: str, target: str) -> Copied:
        bucket: str = self.reader.read_option("bucket")
        source = self.reader.store.call_s3("head_object", Bucket=bucket, Key=name)
        size, etag = int(source["ContentLength"]), str(source["ETag"])
        key = posixpath.join(self.writer.filebase.base, target)
        if not self._by_server(bucket, name, key, size, etag):
            self._by_hand(name, target, size)
        copied = self.writer.store.call_s3("head_object", Bucket=self.writer.root, Key=key.lstrip("/"))
        if int(copied["ContentLength"]) != size or (
            _telling(source) and _telling(copied) and str(copied["ETag"]) != etag
        ):
            raise InconsistentWriteState(
                None, f"{self.writer.shown(key)} has {copied['ContentLength']} bytes and etag {copied['ETag']}, "
                f"and should have {size} and {etag}"
            )  # fmt: skip
        total = (source.get("Metadata") or {}).get("total", "")
        return Copied(size, int(total) if total.isdigit() else None)

    def _by_server(self, bucket: str, name: str, key: str, size: int, etag: str) -> bool:
        if _service(self.reader.read_option("endpoint_url")) != _service(self.writer.read_option("host")):
            return False
        store = self.writer.store
        try:
            if size > _WHOLE:
                store.cp_file(f"{bucket}/{name}", self.writer.target(key))
            else:
                store.call_s3(
                    "copy_object", Bucket=self.writer.root, Key=key.lstrip("/"), ACL="bucket-owner-full-control",
                    CopySource={"Bucket": bucket, "Key": name}, CopySourceIfMatch=etag,
                )  # fmt: skip
        except PermissionError as error:
            self.writer.logger.info("%s is copied by hand: %s", name, error)
            return False
        return True

    def _by_hand(self, name: str, target: str, size: int) -> None:
        with contextlib.closing(self.reader.open_stream(name)) as stream:
            counted = Counted(stream)
            self.writer.write_stream(target, counted)
        if counted.size != size:
            raise InconsistentWriteState(None, f"{name} had {size} bytes, and {counted.size} were read")

    def complete(self) -> None:
        """Write the pointer."""
        self.writer.write_pointer()


def _telling(head: Mapping[str, Any]) -> bool:
    """Whether an etag is the MD5 of the object: not where it was put in parts, or is encrypted by a key of its own."""
    return (
        "-" not in str(head["ETag"]) and head.get("ServerSideEncryption") != _KMS and "SSECustomerAlgorithm" not in head
    )


def _service(address: str | None) -> str:
    return "" if not address else address.partition("://")[2] or address
