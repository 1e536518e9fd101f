"""Files on an SFTP server."""

from __future__ import annotations

import contextlib
import posixpath
import stat
from pathlib import Path
from typing import Any

from resilient_exporters.pipeline.checks import host, port, seconds
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.pipeline.writers.store import BaseStoreWriter, needed

__all__ = ["SFTPWriter"]


class SFTPWriter(BaseStoreWriter):
    """Writes files to an SFTP server, beginning at the directory in which the user arrives.

    The user is known by a password, or by a key (``key_file``; then the password, if given, is that of the key).
    A host whose key is another one than the user's known_hosts says is refused. One that is not in there is taken, and
    the log says so, unless ``known_hosts`` is given: then it is refused, too.
    """

    supported_options = {
        "host": Option(type=str, check=host, help="Host."),
        "port": Option(type=int, default=22, check=port, help="Port."),
        "sftp_user": Option(type=str, env_fallback="EXPORTERS_SFTP_USER", help="User."),
        "sftp_password": Option(
            type=str,
            default=None,
            env_fallback="EXPORTERS_SFTP_PASSWORD",
            secret=True,
            help="Password; needed, unless there is a key_file.",
        ),
        "key_file": Option(type=str, default=None, help="File of the user's private key, in place of a password."),
        "known_hosts": Option(type=str, default=None, help="File of host keys; a host that is not in it is refused."),
        "timeout": Option(type=float, default=60.0, check=seconds, help="Seconds to wait for an answer."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        needed("paramiko", "sftp", self)
        if self.read_option("sftp_password") is None and self.read_option("key_file") is None:
            raise ConfigurationError(
                None, "Option sftp_password is missing (or set EXPORTERS_SFTP_PASSWORD): give it, or key_file"
            )
        self._client: Any = None
        self._sftp: Any = None
        self._made: set[str] = set()

    def shown(self, name: str) -> str:
        """The URL of a file."""
        return f"sftp://{self.read_option('host')}:{self.read_option('port')}/{name}"

    def _connected(self) -> Any:
        if self._sftp is None:
            import paramiko

            client = paramiko.SSHClient()
            known = self.read_option("known_hosts")
            if known is None:
                client.load_system_host_keys()
                client.set_missing_host_key_policy(paramiko.WarningPolicy())  # noqa: S507 - as documented
            else:
                client.load_host_keys(known)
                client.set_missing_host_key_policy(paramiko.RejectPolicy())
            timeout = self.read_option("timeout")
            try:
                client.connect(
                    self.read_option("host"), self.read_option("port"), self.read_option("sftp_user"),
                    timeout=timeout, banner_timeout=timeout, auth_timeout=timeout, allow_agent=False,
                    look_for_keys=False, **self._credentials(),
                )  # fmt: skip
                self._sftp = client.open_sftp()
                self._sftp.get_channel().settimeout(timeout)
            except (paramiko.AuthenticationException, paramiko.BadHostKeyException) as error:
                client.close()
                raise PipelineError(
                    None, f"sftp://{self.read_option('host')} and {self.read_option('sftp_user')}: {error}"
                ) from error
            except BaseException:
                client.close()
                raise
            self._client = client
        return self._sftp

    def _credentials(self) -> dict[str, Any]:
        key, password = self.read_option("key_file"), self.read_option("sftp_password")
        return {"password": password} if key is None else {"key_filename": key, "passphrase": password}

    def _with(self, function: Any) -> Any:
        """Do something with the connection; one that broke is made anew at the next attempt."""
        try:
            return function(self._connected())
        except (FileNotFoundError, PermissionError):
            raise
        except Exception:
            self._disconnect()
            raise

    def reach(self) -> None:
        """Log in."""
        self._with(lambda sftp: sftp.normalize("."))

    def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
        """Upload under a temporary name, then rename."""
        temporary = self.temporary(name, packed)

        def upload(sftp: Any) -> None:
            self._make_directory(sftp, posixpath.dirname(name))
            sftp.put(str(path), temporary, confirm=True)
            try:
                sftp.posix_rename(temporary, name)
            except OSError as error:
                if error.errno is not None:  # no right, no such file: the other way would not help
                    raise
                self._rename_over(sftp, temporary, name)

        self._with(upload)

    def _rename_over(self, sftp: Any, temporary: str, name: str) -> None:
        """Rename where the server lacks OpenSSH's extension: over a file it does not, then."""
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(sftp.stat(name).st_mode):
                raise PipelineError(None, f"{self.shown(name)} is a directory: no file can have its name")
            sftp.remove(name)
        sftp.rename(temporary, name)

    def _make_directory(self, sftp: Any, directory: str) -> None:
        if directory in ("", "/") or directory in self._made:
            return
        try:
            if not stat.S_ISDIR(sftp.stat(directory).st_mode):
                raise PipelineError(None, f"{self.shown(directory)} is no directory")
        except FileNotFoundError:
            self._make_directory(sftp, posixpath.dirname(directory))
            sftp.mkdir(directory)
        self._made.add(directory)

    def size_of(self, name: str) -> int | None:
        """The size of a file."""
        try:
            return int(self._with(lambda sftp: sftp.stat(name).st_size))
        except FileNotFoundError:
            return None

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = self._sftp = None
        self._made.clear()

    def close(self) -> None:
        """Log out."""
        self._disconnect()
        super().close()
