"""Tasks on S3: ToS3, FromS3, ListS3Objects, and S3Task for your own."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from typing import IO, Any, ClassVar, cast

from resilient_exporters.tasks.errors import InputError, TaskError
from resilient_exporters.tasks.frames import frame_kind, write_csv
from resilient_exporters.tasks.placeholder import REQUIRED_ATTRIBUTE
from resilient_exporters.tasks.resources import BaseResource, S3Client
from resilient_exporters.tasks.rows import Rows
from resilient_exporters.tasks.task import BaseTask, formatted

__all__ = ["FromS3", "ListS3Objects", "S3Task", "S3Upload", "ToS3"]


class S3Task(BaseTask):
    """A step of your own on S3: ``run`` has upload, download, list_objects, delete_object and object_exists.

    A bucket may be written with a path: ``bucket/a/b`` and key ``c`` are the object ``a/b/c`` in ``bucket``.

    Attributes:
        overwrite_if_exists: whether ``upload`` may replace an object.
        stream: ``download`` gives a temporary file, which need not fit into memory, instead of a BytesIO.
    """

    required_resource: ClassVar[type[BaseResource] | None] = S3Client
    overwrite_if_exists: ClassVar[bool] = False
    stream: ClassVar[bool] = False

    def upload(self, obj: Any, bucket: str, key: str) -> None:
        """Upload an object, encrypted at rest (AES256).

        Args:
            obj: a DataFrame or rows (as CSV without index), a text (UTF-8), bytes, or a file open for bytes.
            bucket, key: where to.

        Raises:
            TaskError: it exists, and must not be overwritten.
            InputError: it is none of these; a ValueError.
        """
        with _stream(obj) as stream:
            self.upload_byte_stream(stream, bucket, key)

    def upload_byte_stream(self, data: IO[bytes], bucket: str, key: str) -> None:
        """Upload what a file holds from where it stands, as ``upload`` does. Large ones go in parts."""
        bucket, key = _place(bucket, key)
        if not self.overwrite_if_exists and self.object_exists(bucket, key):
            raise TaskError(f"s3://{bucket}/{key} exists; set overwrite_if_exists = True to replace it")
        self.logger.debug("uploading to s3://%s/%s", bucket, key)
        kept = cast("IO[bytes]", _Open(data))
        S3Client.resource().upload_fileobj(kept, bucket, key, ExtraArgs={"ServerSideEncryption": "AES256"})

    def download(self, bucket: str, key: str) -> IO[bytes]:
        """An object, as a file that stands at its beginning.

        Raises:
            TaskError: there is no such object.
        """
        from botocore.exceptions import ClientError

        bucket, key = _place(bucket, key)
        stream: IO[bytes] = tempfile.TemporaryFile() if self.stream else io.BytesIO()  # noqa: SIM115 - the output
        try:
            S3Client.resource().download_fileobj(bucket, key, stream)
        except BaseException as error:
            stream.close()
            if isinstance(error, ClientError) and _code(error) in ("404", "NoSuchKey"):
                raise TaskError(f"there is no s3://{bucket}/{key}") from error
            raise
        stream.seek(0)
        return stream

    def list_objects(self, bucket: str, prefix: str | None = None, suffix: str | None = None) -> list[str]:
        """All keys in a bucket that begin and end so; none is an empty list."""
        bucket, start = _place(bucket, prefix or "")
        pages = S3Client.resource().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
        keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return [key for key in keys if suffix is None or key.endswith(suffix)]

    def delete_object(self, bucket: str, key: str) -> bool:
        """Delete an object, if it is there. Returns whether S3 did as it was told; if not, the log says why."""
        from botocore.exceptions import ClientError

        bucket, key = _place(bucket, key)
        try:
            S3Client.resource().delete_object(Bucket=bucket, Key=key)
        except ClientError as error:
            self.logger.error("s3://%s/%s could not be deleted: %s", bucket, key, error)
            return False
        return True

    def object_exists(self, bucket: str, key: str) -> bool:
        """Whether there is such an object."""
        from botocore.exceptions import ClientError

        bucket, key = _place(bucket, key)
        try:
            S3Client.resource().head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if _code(error) in ("404", "NoSuchKey"):
                return False
            raise
        return True


class ToS3(S3Task, abstract=True):
    """Upload an input.

    Attributes:
        input: a DataFrame or rows (as CSV), a text, bytes, or a file open for bytes.
        bucket, key: where to; ``{name}`` is a format keyword.
        overwrite_if_exists: whether an object may be replaced.
    """

    formatted_attributes = ("bucket", "key")
    input: Any = REQUIRED_ATTRIBUTE
    bucket: Any = REQUIRED_ATTRIBUTE
    key: Any = REQUIRED_ATTRIBUTE

    def run(self) -> None:
        """Upload it."""
        self.upload(self.input, formatted(self, self.bucket, "bucket"), formatted(self, self.key, "key"))


S3Upload = ToS3


class FromS3(S3Task, abstract=True):
    """Download an object; the output is a BytesIO, or with ``stream`` a temporary file, at its beginning.

    Attributes:
        bucket, key: where from; ``{name}`` is a format keyword.
    """

    formatted_attributes = ("bucket", "key")
    bucket: Any = REQUIRED_ATTRIBUTE
    key: Any = REQUIRED_ATTRIBUTE

    def run(self) -> IO[bytes]:
        """Download it."""
        return self.download(formatted(self, self.bucket, "bucket"), formatted(self, self.key, "key"))


class ListS3Objects(S3Task, abstract=True):
    """List keys; the output is a list of all of them.

    Attributes:
        bucket: whose; ``{name}`` is a format keyword, here and in the other two.
        prefix, suffix: how keys begin and end; None: anyhow.
    """

    formatted_attributes = ("bucket", "prefix", "suffix")
    bucket: Any = REQUIRED_ATTRIBUTE
    prefix: Any = None
    suffix: Any = None

    def run(self) -> list[str]:
        """List them."""
        bucket, prefix, suffix = (formatted(self, getattr(self, name), name) for name in self.formatted_attributes)
        return self.list_objects(bucket, prefix, suffix)


class _Open:
    """A file that boto3 does not close: it is the output of a task, which others may want too."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.read, self.seek, self.tell, self.seekable = file.read, file.seek, file.tell, file.seekable

    def close(self) -> None:
        """Not here."""


def _stream(obj: Any) -> Any:
    """A context with a file open for bytes, at its beginning."""
    if isinstance(obj, io.IOBase) or hasattr(obj, "readinto"):
        return _Rewound(obj)
    if isinstance(obj, (str, bytes, bytearray)):
        return io.BytesIO(obj.encode() if isinstance(obj, str) else obj)
    stream = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        if frame_kind(obj) == "pandas":
            write_csv(obj, stream, {"index": False})
        elif frame_kind(obj) or isinstance(obj, (list, Rows)):
            write_csv(obj, stream, {})
        else:
            raise InputError(
                f"an input of type {type(obj).__name__} cannot be uploaded; give a DataFrame, rows, a text, bytes, or "
                "a file open for bytes"
            )
    except BaseException:
        stream.close()
        raise
    stream.seek(0)
    return stream


class _Rewound:
    """A file of somebody else: read from its beginning, left there, and left open."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def _rewind(self) -> None:
        if self._file.seekable():
            self._file.seek(0)

    def __enter__(self) -> Any:
        if isinstance(self._file, io.TextIOBase):
            raise InputError("a file open for text cannot be uploaded; open it for bytes ('rb')")
        self._rewind()
        return self._file

    def __exit__(self, *_: object) -> None:
        self._rewind()


def _place(bucket: str, key: str) -> tuple[str, str]:
    """Bucket and key, where the bucket was written with a path. An ARN has slashes of its own."""
    if bucket.startswith("arn:") or "/" not in bucket:
        return bucket, key
    name, _, path = bucket.partition("/")
    return name, f"{path.rstrip('/')}/{key}" if path.strip("/") else key


def _code(error: Any) -> str:
    details: Mapping[str, Any] = error.response.get("Error", {})
    return str(details.get("Code"))
