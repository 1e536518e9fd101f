"""Files in Azure: as blobs of a container, or in a file share."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, ClassVar, Final

from resilient_exporters.pipeline.checks import one_line
from resilient_exporters.pipeline.errors import InconsistentWriteState
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.pipeline.writers.object_store import ObjectStoreWriter
from resilient_exporters.pipeline.writers.store import BaseStoreWriter, needed

__all__ = ["AzureBlobWriter", "AzureFileWriter"]

_CONTAINER: Final = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
_ACCOUNT: Final = {
    "account_name": Option(type=str, env_fallback="EXPORTERS_AZUREWRITER_NAME", help="Name of the account."),
    "account_key": Option(type=str, env_fallback="EXPORTERS_AZUREWRITER_KEY", secret=True, help="Key of the account."),
}


class AzureBlobWriter(ObjectStoreWriter):
    """Writes files as blobs of a container, which is made if need be."""

    extra: ClassVar[str] = "azure"
    module: ClassVar[str] = "adlfs"
    supported_options = {
        **_ACCOUNT,
        "container": Option(type=str, check=one_line, help="Name of the container."),
        "filebase": Option(
            type=str, default=None, help="Beginning of the names, as of other writers; default: random, for this run."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not _CONTAINER.fullmatch(self.root):
            self.logger.warning(
                "container=%r: Azure takes 3 to 63 lower case letters, digits and single dashes between them", self.root
            )

    def template(self, filebase: str | None) -> str:
        """The option, or what is this run's own."""
        self.protocol = "abfs"
        self.root = self.read_option("container")
        return f"{self.token}-" if filebase is None else filebase

    def options_of_store(self) -> dict[str, Any]:
        """Name and key."""
        return {"account_name": self.read_option("account_name"), "account_key": self.read_option("account_key")}

    def reach(self) -> None:
        """Make the container, if it is not there."""
        if not self.store.exists(self.root):
            self.store.mkdir(self.root)

    def arguments(self, packed: PackedFile | None) -> dict[str, Any]:
        """The MD5, which Azure keeps."""
        if packed is None:
            return {}
        from azure.storage.blob import ContentSettings

        return {"content_settings": ContentSettings(content_md5=bytearray.fromhex(packed.md5))}

    def verify(self, packed: PackedFile) -> None:
        """Size and MD5.

        Raises:
            InconsistentWriteState: they are others.
        """
        super().verify(packed)
        found = ((self.info(packed.name) or {}).get("content_settings") or {}).get("content_md5")
        if found is not None and bytes(found).hex() != packed.md5:
            raise InconsistentWriteState(None, f"{self.shown(packed.name)} has another MD5 than {packed.md5}")


class AzureFileWriter(BaseStoreWriter):
    """Writes files into a file share of Azure, which is made if need be."""

    supported_options = {
        **_ACCOUNT,
        "share": Option(type=str, check=one_line, help="Name of the share."),
        "account_url": Option(
            type=str, default=None, help="URL of the service; default: https://NAME.file.core.windows.net."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        needed("azure.storage.fileshare", "azure", self)
        self._share: Any = None
        self._made: set[str] = set()

    def shown(self, name: str) -> str:
        """Share and path."""
        return f"{self.read_option('share')}/{name.lstrip('/')}"

    @property
    def share(self) -> Any:
        """The client of the share."""
        if self._share is None:
            from azure.storage.fileshare import ShareClient

            url = self.read_option("account_url") or f"https://{self.read_option('account_name')}.file.core.windows.net"
            self._share = ShareClient(url, self.read_option("share"), credential=self._credential())
        return self._share

    def _credential(self) -> Any:
        return {"account_name": self.read_option("account_name"), "account_key": self.read_option("account_key")}

    def reach(self) -> None:
        """Make the share, if it is not there."""
        from azure.core.exceptions import ResourceExistsError

        try:
            self.share.create_share()
        except ResourceExistsError:
            self.logger.info("share %s is there", self.read_option("share"))

    def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
        """Upload under a temporary name, then rename."""
        name = name.lstrip("/")
        self._make_directory(posixpath.dirname(name))
        client = self.share.get_file_client(self.temporary(name, packed))
        with path.open("rb") as file:
            client.upload_file(file, length=path.stat().st_size)
        client.rename_file(name, overwrite=True)

    def _make_directory(self, directory: str) -> None:
        from azure.core.exceptions import ResourceExistsError

        if not directory or directory in self._made:
            return
        self._make_directory(posixpath.dirname(directory))
        try:
            self.share.create_directory(directory)
        except ResourceExistsError:
            self.logger.debug("%s is there", directory)
        self._made.add(directory)

    def size_of(self, name: str) -> int | None:
        """The size of a file."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return int(self.share.get_file_client(name.lstrip("/")).get_file_properties().size)
        except ResourceNotFoundError:
            return None

    def close(self) -> None:
        """Close the connection."""
        if self._share is not None:
            self._share.close()
            self._share = None
        super().close()
