"""Files in Dropbox. Tested with its own client and a server that answers like the service; not against the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.pipeline.writers.store import BaseStoreWriter, needed

__all__ = ["DropboxWriter"]

_PART: Final = 32 << 20


class DropboxWriter(BaseStoreWriter):
    """Writes files into Dropbox. Tested with Dropbox's client, but not against the service.

    Access tokens last for some hours nowadays: for longer runs give ``refresh_token`` and ``app_key``, too.
    """

    supported_options = {
        "access_token": Option(
            type=str, default=None, env_fallback="EXPORTERS_DROPBOXWRITER_TOKEN", secret=True, help="Token."
        ),
        "refresh_token": Option(type=str, default=None, secret=True, help="Token by which new access tokens are had."),
        "app_key": Option(type=str, default=None, help="Key of the app that the refresh token is for."),
        "app_secret": Option(type=str, default=None, secret=True, help="Secret of that app, if it has one."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        needed("dropbox", "dropbox", self)
        if self.read_option("access_token") is None and self.read_option("refresh_token") is None:
            raise ConfigurationError(
                None, "Option access_token is missing (or set EXPORTERS_DROPBOXWRITER_TOKEN): give it, or refresh_token"
            )
        if self.read_option("refresh_token") is not None and self.read_option("app_key") is None:
            raise ConfigurationError(None, "refresh_token: give app_key, too: the app that it is for")
        self._client: Any = None

    def shown(self, name: str) -> str:
        """The path of a file."""
        return f"dropbox://{name.lstrip('/')}"

    @property
    def client(self) -> Any:
        """Dropbox's client; made when it is first asked for."""
        if self._client is None:
            import dropbox

            self._client = dropbox.Dropbox(
                oauth2_access_token=self.read_option("access_token"),
                oauth2_refresh_token=self.read_option("refresh_token"),
                app_key=self.read_option("app_key"),
                app_secret=self.read_option("app_secret"),
            )
        return self._client

    def reach(self) -> None:
        """See whether the token is taken.

        Raises:
            PipelineError: it is not.
        """
        import dropbox

        try:
            self.client.users_get_current_account()
        except dropbox.exceptions.AuthError as error:
            raise PipelineError(None, f"Dropbox refuses the token: {error.error}") from error

    def put(self, path: Path, name: str, packed: PackedFile | None) -> None:  # noqa: ARG002 - whole at once
        """Upload in parts; the last one makes it visible."""
        from dropbox import files

        commit = files.CommitInfo(f"/{name.lstrip('/')}", mode=files.WriteMode.overwrite)
        with path.open("rb") as file:
            session = self.client.files_upload_session_start(file.read(_PART)).session_id
            size = path.stat().st_size
            while size - file.tell() > _PART:
                cursor = files.UploadSessionCursor(session, file.tell())
                self.client.files_upload_session_append_v2(file.read(_PART), cursor)
            cursor = files.UploadSessionCursor(session, file.tell())
            self.client.files_upload_session_finish(file.read(), cursor, commit)

    def size_of(self, name: str) -> int | None:
        """The size of a file."""
        import dropbox

        try:
            return int(self.client.files_get_metadata(f"/{name.lstrip('/')}").size)
        except dropbox.exceptions.ApiError as error:
            if error.error.is_path() and error.error.get_path().is_not_found():
                return None
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None
        super().close()
