"""Files in any store that fsspec knows."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any, ClassVar, Final

from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.pipeline.writers.store import BaseStoreWriter, needed

__all__ = ["ObjectStoreWriter"]

_ATOMIC: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"})
_LOCAL: Final = ("", "file", "local")


class ObjectStoreWriter(BaseStoreWriter):
    """Writes files to any store that fsspec knows: ``filebase="s3://bucket/readings/%Y/{groups[0]}/out_"``.

    A store of objects shows a file once it is whole. Elsewhere it is put under a temporary name in the same directory
    and then renamed.

    Attributes:
        protocol: of the store, as fsspec names it.
        root: what all names begin with: a bucket, for instance.
    """

    extra: ClassVar[str] = "fs"
    module: ClassVar[str] = "fsspec"
    supported_options = {
        "storage_options": Option(
            type=dict, default={}, secret=True, help="More keywords of fsspec's file system for this store."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.protocol = ""
        self.root = ""
        super().__init__(*args, **kwargs)
        needed("fsspec", "fs", self)
        if self.module != "fsspec":
            needed(self.module, self.extra, self)
        self._fs: Any = None
        self._made: set[str] = set()

    def template(self, filebase: str) -> str:
        """The option without its protocol, which says what store it is."""
        protocol, separator, rest = filebase.partition("://")
        self.protocol = protocol if separator else "file"
        return rest if separator else filebase

    def shown(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.protocol}://{self.target(name)}"

    def target(self, name: str) -> str:
        """Where a file lies in the store."""
        return posixpath.join(self.root, name.lstrip("/")) if self.root else name

    def options_of_store(self) -> dict[str, Any]:
        """Keywords of fsspec's file system."""
        return {}

    @property
    def store(self) -> Any:
        """The file system of fsspec; made when it is first asked for."""
        if self._fs is None:
            import fsspec

            self._fs = fsspec.filesystem(
                self.protocol,
                skip_instance_cache=True,
                **{"use_listings_cache": False, **self.options_of_store(), **self.read_option("storage_options")},
            )
        return self._fs

    def reach(self) -> None:
        """See whether there is such a store."""
        self.store.exists(self.target(self.filebase.base) or "/")

    def arguments(self, packed: PackedFile | None) -> dict[str, Any]:  # noqa: ARG002 - a subclass may need it
        """What is said to the store with a file."""
        return {}

    def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
        """Put a file; under a temporary name first where the store shows what is not whole."""
        target = self.target(name)
        if self.protocol in _ATOMIC:
            self.store.put_file(str(path), target, **self.arguments(packed))
            return
        temporary = self.target(self.temporary(name, packed))
        self._make_directory(posixpath.dirname(target))
        self.store.put_file(str(path), temporary, **self.arguments(packed))
        if self.protocol not in _LOCAL and self.store.exists(target):
            self.store.rm_file(target)
        self.store.mv(temporary, target)

    def put_text(self, name: str, text: str) -> None:
        """Put a few words."""
        self.store.pipe_file(self.target(name), text.encode())

    def _make_directory(self, directory: str) -> None:
        if directory and directory not in self._made:
            self.store.makedirs(directory, exist_ok=True)
            self._made.add(directory)

    def info(self, name: str) -> dict[str, Any] | None:
        """What the store knows of a file; None: it is not there."""
        try:
            found: dict[str, Any] = self.store.info(self.target(name))
        except FileNotFoundError:
            return None
        return found

    def size_of(self, name: str) -> int | None:
        """The size of a file."""
        found = self.info(name)
        return None if found is None else int(found["size"])
