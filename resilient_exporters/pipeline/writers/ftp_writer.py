"""Files on an FTP server."""

from __future__ import annotations

import contextlib
import ftplib
import posixpath
from pathlib import Path
from typing import Any, ClassVar

from resilient_exporters.pipeline.checks import host, port, seconds
from resilient_exporters.pipeline.errors import PipelineError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.pipeline.writers.store import BaseStoreWriter

__all__ = ["FTPWriter"]


class FTPWriter(BaseStoreWriter):
    """Writes files to an FTP server, beginning at the directory in which the user arrives."""

    supported_options = {
        "host": Option(type=str, check=host, help="Host."),
        "port": Option(type=int, default=21, check=port, help="Port."),
        "ftp_user": Option(type=str, env_fallback="EXPORTERS_FTP_USER", help="User."),
        "ftp_password": Option(type=str, env_fallback="EXPORTERS_FTP_PASSWORD", secret=True, help="Password."),
        "tls": Option(type=bool, default=False, help="Encrypt the connection: FTPS."),
        "timeout": Option(type=float, default=60.0, check=seconds, help="Seconds to wait for an answer."),
    }
    hopeless: ClassVar[tuple[type[Exception], ...]] = (*BaseStoreWriter.hopeless, ftplib.error_perm)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ftp: ftplib.FTP | None = None
        self._made: set[str] = set()

    def shown(self, name: str) -> str:
        """The URL of a file."""
        return f"ftp://{self.read_option('host')}:{self.read_option('port')}/{name}"

    def _connected(self) -> ftplib.FTP:
        if self._ftp is None:
            timeout = self.read_option("timeout")
            ftp = (ftplib.FTP_TLS if self.read_option("tls") else ftplib.FTP)(timeout=timeout)
            try:
                ftp.connect(self.read_option("host"), self.read_option("port"))
                ftp.login(self.read_option("ftp_user"), self.read_option("ftp_password"))
                if isinstance(ftp, ftplib.FTP_TLS):
                    ftp.prot_p()
            except ftplib.error_perm as error:
                ftp.close()
                raise PipelineError(
                    None, f"ftp://{self.read_option('host')} refuses {self.read_option('ftp_user')}: {error}"
                ) from error
            except BaseException:
                ftp.close()
                raise
            self._ftp = ftp
        return self._ftp

    def reach(self) -> None:
        """Log in."""
        with self._connection():
            pass

    @contextlib.contextmanager
    def _connection(self) -> Any:
        """The connection; one that broke is made anew at the next attempt."""
        try:
            yield self._connected()
        except ftplib.error_perm:
            raise
        except Exception:
            self._disconnect()
            raise

    def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
        """Upload under a temporary name, then rename."""
        temporary = self.temporary(name, packed)
        with self._connection() as ftp, path.open("rb") as file:
            self._make_directory(ftp, posixpath.dirname(name))
            ftp.storbinary(f"STOR {temporary}", file, blocksize=1 << 16)
            try:
                ftp.rename(temporary, name)
            except ftplib.error_perm:  # some servers do not rename over a file
                with contextlib.suppress(ftplib.error_perm):  # there is none: the next line says what is wrong
                    ftp.delete(name)
                ftp.rename(temporary, name)

    def _make_directory(self, ftp: ftplib.FTP, directory: str) -> None:
        if directory in ("", "/") or directory in self._made:
            return
        self._make_directory(ftp, posixpath.dirname(directory))
        try:
            ftp.mkd(directory)
        except ftplib.error_perm:
            here = ftp.pwd()
            ftp.cwd(directory)  # it is there, or this says why not
            ftp.cwd(here)
        self._made.add(directory)

    def size_of(self, name: str) -> int | None:
        """The size of a file."""
        with self._connection() as ftp:
            try:
                ftp.voidcmd("TYPE I")
                size: int | None = ftp.size(name)
            except ftplib.error_perm:
                return None
            return size

    def _disconnect(self) -> None:
        if self._ftp is not None:
            self._ftp.close()
            self._ftp = None
        self._made.clear()

    def close(self) -> None:
        """Log out."""
        if self._ftp is not None:
            with contextlib.suppress(*ftplib.all_errors):  # a server that is gone needs no good-bye
                self._ftp.quit()
            self._disconnect()
        super().close()
