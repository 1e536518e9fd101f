"""Files in a bucket of S3, or of a service that speaks like it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, ClassVar, Final

from resilient_exporters.pipeline.checks import one_line
from resilient_exporters.pipeline.errors import ConfigurationError, InconsistentWriteState, PipelineError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.pipeline.writers.object_store import ObjectStoreWriter

__all__ = ["S3Writer"]

_PART: Final = 25 << 20  # s3fs uploads in parts what has at least two of them: above 50 MiB
_REGION: Final = "us-east-1"


class S3Writer(ObjectStoreWriter):
    """Writes files into a bucket of S3, or of a service that speaks like it (``host``).

    Files above 50 MiB go up in parts. The owner of the bucket gets full control of them. What a killed run had
    uploaded of a file in parts is aborted when the file is uploaded again.
    """

    extra: ClassVar[str] = "s3"
    module: ClassVar[str] = "s3fs"
    supported_options = {
        "bucket": Option(type=str, check=one_line, help="Name of the bucket."),
        "aws_access_key_id": Option(
            type=str, default=None, env_fallback="EXPORTERS_S3WRITER_AWS_LOGIN", secret=True,
            help="Key id; default: what the AWS libraries find (environment, profile, role of the machine).",
        ),
        "aws_secret_access_key": Option(
            type=str, default=None, env_fallback="EXPORTERS_S3WRITER_AWS_SECRET", secret=True, help="Secret key."
        ),
        "aws_region": Option(type=str, default=None, help="Region of the bucket; default: asked for, or us-east-1."),
        "host": Option(type=str, default=None, help="Host or URL of another service than AWS: https://minio:9000."),
        "save_pointer": Option(
            type=str, default=None, help="Key that gets the directory of this run's files as its text, at the end."
        ),
        "save_metadata": Option(
            type=bool, default=True, help="Keep number of records and MD5 with each file, as total and md5."
        ),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.save_metadata: bool = self.read_option("save_metadata")
        keys = (self.read_option("aws_access_key_id"), self.read_option("aws_secret_access_key"))
        if (keys[0] is None) != (keys[1] is None):
            raise ConfigurationError(
                None, "aws_access_key_id and aws_secret_access_key: give both, or none for what the AWS libraries find"
            )

    def template(self, filebase: str) -> str:
        """The option: keys begin with no slash."""
        self.protocol = "s3"
        self.root = self.read_option("bucket").removeprefix("s3://").strip("/")
        return filebase

    def options_of_store(self) -> dict[str, Any]:
        """Keys, region and host."""
        region, host = self.read_option("aws_region"), self.read_option("host")
        key = self.read_option("aws_access_key_id")
        endpoint = host if host is None or "://" in host else f"https://{host}"
        return {
            "key": key,
            "secret": self.read_option("aws_secret_access_key"),
            "cache_regions": region is None and host is None,
            "client_kwargs": {
                "region_name": region or _REGION,
                **({} if endpoint is None else {"endpoint_url": endpoint}),
            },
        }

    def reach(self) -> None:
        """See whether there is such a bucket.

        Raises:
            PipelineError: there is not, or it is not for this user.
        """
        try:
            self.store.call_s3("head_bucket", Bucket=self.root)
        except FileNotFoundError as error:
            raise PipelineError(None, f"bucket={self.root!r}: there is no such bucket; make it first") from error
        except PermissionError as error:
            self.logger.warning(
                "bucket %s may not be looked at (%s): whether it can be written to shows later", self.root, error
            )

    def arguments(self, packed: PackedFile | None) -> dict[str, Any]:
        """Size of the parts, owner, number of records and MD5."""
        known: dict[str, Any] = {"chunksize": _PART, "ACL": "bucket-owner-full-control"}
        if packed is not None and self.save_metadata:
            known["Metadata"] = {"total": str(packed.records), "md5": packed.md5}
        return known

    def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
        """Put a file; parts of it that a killed run left go first."""
        if packed is not None and packed.size >= 2 * _PART:
            self._abort_parts(self.target(name).partition("/")[2])
        super().put(path, name, packed)

    def _abort_parts(self, key: str) -> None:
        with contextlib.suppress(PermissionError, NotImplementedError):  # not every user may list uploads
            found = self.store.call_s3("list_multipart_uploads", Bucket=self.root, Prefix=key)
            for upload in found.get("Uploads", []):
                if upload["Key"] == key:
                    self.store.call_s3("abort_multipart_upload", Bucket=self.root, Key=key, UploadId=upload["UploadId"])

    def verify(self, packed: PackedFile) -> None:
        """Size and number of records.

        Raises:
            InconsistentWriteState: they are others.
        """
        super().verify(packed)
        if self.save_metadata:
            total = self.store.metadata(self.target(packed.name)).get("total")
            if total != str(packed.records):
                raise InconsistentWriteState(
                    None, f"{self.shown(packed.name)} has total={total} and should have {packed.records} records"
                )

    def finish_writing(self) -> None:
        """Write the pointer, if there is something to point at."""
        super().finish_writing()
        written = [{"key_name": self.target(one["name"]).partition("/")[2], **_figures(one)} for one in self._entries]
        self.set_metadata("keys_written", written)
        if self._entries:
            self.write_pointer()

    def write_pointer(self) -> None:
        """Say at the target where the files of this run are."""
        pointer = self.read_option("save_pointer")
        if pointer:
            base = self.filebase.base.strip("/")
            self.attempt(lambda: self.put_text(pointer, f"{base}/" if base else ""), f"writing {self.shown(pointer)}")


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    return {"number_of_records": entry["records"], "size": entry["size"], "hash": entry["md5"]}
