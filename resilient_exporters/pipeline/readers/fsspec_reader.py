"""Files and objects anywhere that fsspec reaches."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.decompressors import Source
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.option import ListOf, Option, resolved
from resilient_exporters.pipeline.readers.file_reader import check_pattern
from resilient_exporters.pipeline.readers.stream import BaseStreamReader

__all__ = ["FsspecReader"]

_READ_AHEAD = 4 * 1024 * 1024  # bytes fetched at once: a request each
_GLOB = re.compile(r"[*?\[]")
_PACKAGES: Mapping[str, str] = {
    "abfs": "adlfs", "az": "adlfs", "gcs": "gcsfs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp", "s3": "s3fs",
    "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol",
}  # fmt: skip


def _check_urls(given: str | list[str]) -> None:
    if not given:
        raise ConfigurationError(None, f"url={given!r}: give one at least, for instance s3://bucket/directory")
    for one in _each(given):
        _protocol(one)


class FsspecReader(BaseStreamReader):
    """Reads files and objects by URL: ``s3://``, ``gs://``, ``az://``, ``sftp://``, ``http://`` and others.

    A URL is that of one file, or of a directory: then of all below it; or it has ``*``, ``**``, ``?`` or ``[…]`` in
    its path. Of ``http`` and ``https`` it is one file. The files of one URL are read in the order of their names.

    Args:
        config, metadata: as of every module.
        **options: ``url``, ``pattern``, ``storage_options``, ``batch_size``.

    Raises:
        MissingModuleError: fsspec, or the package for one of the URLs, is not installed.
    """

    supported_options = {
        "url": Option(
            type=(str, ListOf(str)),
            check=_check_urls,
            help="One URL, or a list of them.",
        ),
        "pattern": Option(
            type=str, default=None, check=check_pattern, help="Regular expression that is searched in the paths."
        ),
        "storage_options": Option(
            type=dict, default={}, secret=True,
            help="What fsspec needs for this kind of storage; {\"env\": \"NAME\"} in it is an environment variable.",
        ),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._urls: list[str] = _each(self.read_option("url"))
        self._places: dict[str, tuple[Any, str]] = {}
        for url in self._urls:
            _file_system_class(url)

    def get_read_streams(self) -> Iterable[str]:
        """URLs of the files, without user and password."""
        self._places = {}
        for url in self._urls:
            file_system, path = self._file_system(url)
            for found in self._found(file_system, url, path):
                self._places.setdefault(_name(url, file_system, found), (file_system, found))
        if not self._places:
            self.logger.warning("no file at %s", ", ".join(map(_shown, self._urls)))
        return list(self._places)

    def open_stream(self, stream: str) -> Source:
        """A file."""
        if stream not in self._places:
            self.get_read_streams()
        if stream not in self._places:
            raise FileNotFoundError(stream)
        file_system, path = self._places[stream]
        opened: Source = file_system.open(path, "rb", block_size=_READ_AHEAD)
        return opened

    def _file_system(self, url: str) -> tuple[Any, str]:
        import fsspec

        options = {name: resolved(value, name) for name, value in self.read_option("storage_options").items()}
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            headers = {"Authorization": f"Basic {base64.b64encode(user).decode()}"}
            options["client_kwargs"] = {"headers": headers, **options.get("client_kwargs", {})}
            url = _shown(url)  # errors name it
        try:
            file_system, path = fsspec.core.url_to_fs(url, **options)
        except TypeError as error:
            raise ConfigurationError(None, f"storage_options cannot be used with {_shown(url)}: {error}") from error
        file_system.invalidate_cache()  # others may have listed the same place long ago
        return file_system, path

    def _found(self, file_system: Any, url: str, path: str) -> list[str]:
        protocol = _protocol(url)
        pattern = re.compile(self.read_option("pattern") or "")
        if _GLOB.search(path) and protocol not in ("http", "https"):
            paths = [one for one in file_system.glob(path) if file_system.isfile(one)]
        elif protocol not in ("http", "https") and file_system.isdir(path):
            paths = file_system.find(path)
        else:
            paths = [path]
        return sorted(one for one in paths if pattern.search(one) and not one.endswith("/"))


def _each(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def _protocol(url: str) -> str:
    protocol, mark, rest = url.partition("://")
    if not mark or not rest:
        raise ConfigurationError(None, f"url={_shown(url)!r} is no URL; write for instance s3://bucket/directory")
    return protocol.rpartition("::")[2]


def _file_system_class(url: str) -> None:
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingModuleError(None, "FsspecReader needs: pip install 'resilient-exporters[fs]'") from error
    protocol = _protocol(url)
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise ConfigurationError(None, f"url={_shown(url)!r}: fsspec knows no {protocol}://") from error
    except ImportError as error:
        package = _PACKAGES.get(protocol, "the package that its error names")
        extra = " (pip install 'resilient-exporters[s3]')" if protocol == "s3" else ""
        raise MissingModuleError(None, f"{protocol}:// needs {package}{extra}: {error}") from error


def _name(url: str, file_system: Any, path: str) -> str:
    """A name for ever: without user and password, with the host where there is one."""
    parts = urlsplit(url)
    if path == file_system._strip_protocol(url) or "://" in path:
        return _shown(url if "://" not in path else path)
    full: str = file_system.unstrip_protocol(path)
    host = parts.netloc.rpartition("@")[2]
    if host and host not in full:
        return f"{parts.scheme}://{host}/{path.lstrip('/')}"
    return full


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
