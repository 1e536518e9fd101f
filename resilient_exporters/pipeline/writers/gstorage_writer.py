"""Files in a bucket of Google Cloud Storage."""

from __future__ import annotations

import base64
import importlib.resources
import json
from typing import Any, ClassVar

from resilient_exporters.pipeline.checks import one_line
from resilient_exporters.pipeline.errors import ConfigurationError, InconsistentWriteState, PipelineError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.pipeline.writers.object_store import ObjectStoreWriter

__all__ = ["GStorageWriter"]


class GStorageWriter(ObjectStoreWriter):
    """Writes files into a bucket of Google Cloud Storage."""

    extra: ClassVar[str] = "gcs"
    module: ClassVar[str] = "gcsfs"
    supported_options = {
        "project": Option(type=str, help="Name of the project."),
        "bucket": Option(type=str, check=one_line, help="Name of the bucket."),
        "credentials": Option(
            type=(dict, str), default=None, env_fallback="EXPORTERS_GSTORAGE_CREDS_RESOURCE", secret=True,
            help="Service account as an object, or package:path of such a JSON file; default: what Google's libraries "
            "find.",
        ),
    }  # fmt: skip

    def template(self, filebase: str) -> str:
        """The option: names begin with no slash."""
        self.protocol = "gs"
        self.root = self.read_option("bucket").removeprefix("gs://").strip("/")
        return filebase

    def options_of_store(self) -> dict[str, Any]:
        """Project and credentials."""
        return {"project": self.read_option("project"), "token": self._credentials()}

    def _credentials(self) -> Any:
        given = self.read_option("credentials")
        if not isinstance(given, str):
            return None if given is None else dict(given)
        package, separator, path = given.partition(":")
        try:
            if not separator:
                raise ValueError("no colon")
            found = json.loads(importlib.resources.files(package).joinpath(path).read_text(encoding="utf-8"))
        except (ValueError, OSError, ImportError, TypeError) as error:
            raise ConfigurationError(
                None, "credentials: give the service account as an object, or package:path of its JSON file; "
                f"that cannot be read: {type(error).__name__}"
            ) from error  # fmt: skip
        return found

    def reach(self) -> None:
        """See whether there is such a bucket.

        Raises:
            PipelineError: there is not.
        """
        if not self.store.exists(self.root):
            raise PipelineError(None, f"bucket={self.root!r}: there is no such bucket; make it first")

    def verify(self, packed: PackedFile) -> None:
        """Size and MD5.

        Raises:
            InconsistentWriteState: they are others.
        """
        super().verify(packed)
        found = (self.info(packed.name) or {}).get("md5Hash")
        if found is not None and base64.b64decode(found).hex() != packed.md5:
            raise InconsistentWriteState(None, f"{self.shown(packed.name)} has another MD5 than {packed.md5}")
