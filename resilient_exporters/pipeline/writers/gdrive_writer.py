"""Files in Google Drive. Tested with PyDrive2 and a server that answers like the service; not against the service."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path
from typing import Any

from resilient_exporters.pipeline.errors import ConfigurationError, InconsistentWriteState, PipelineError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.pipeline.writers.store import BaseStoreWriter, needed

__all__ = ["GDriveWriter"]

_FOLDER = "application/vnd.google-apps.folder"


class GDriveWriter(BaseStoreWriter):
    """Writes files into Google Drive. Tested with its client PyDrive2, but not against the service.

    The credentials have to hold a ``refresh_token`` where a run may outlast their access token, an hour for instance.
    Names are not unique there: a file of the same name in the same folder is written over.
    """

    supported_options = {
        "client_secret": Option(type=dict, secret=True, help="The OAuth client, as Google's console gives it."),
        "credentials": Option(type=dict, secret=True, help="The user's OAuth credentials, as PyDrive2 saves them."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        needed("pydrive2", "gdrive", self)
        self._drive: Any = None
        self._folders: dict[str, str] = {"": "root"}

    def shown(self, name: str) -> str:
        """The path of a file."""
        return f"gdrive://{name.lstrip('/')}"

    @property
    def drive(self) -> Any:
        """PyDrive2's client; made when it is first asked for."""
        if self._drive is None:
            from oauth2client.client import OAuth2Credentials
            from pydrive2.auth import GoogleAuth
            from pydrive2.drive import GoogleDrive

            secret = dict(self.read_option("client_secret"))
            client = secret.get("installed") or secret.get("web") or secret
            try:
                auth = GoogleAuth(
                    settings={
                        "client_config_backend": "settings",
                        "client_config": {"client_id": client["client_id"], "client_secret": client["client_secret"]},
                        "save_credentials": False,
                    }
                )
                auth.credentials = OAuth2Credentials.from_json(json.dumps(dict(self.read_option("credentials"))))
                # PyDrive2 would open a browser on this machine for a new token, and wait for somebody to use it.
                auth.LocalWebserverAuth = lambda: _renew(auth)
            except KeyError as error:
                raise ConfigurationError(None, f"client_secret or credentials lack {error}") from error
            self._drive = GoogleDrive(auth)
        return self._drive

    def reach(self) -> None:
        """See whether the credentials are taken."""
        from pydrive2.auth import RefreshError

        try:
            self.drive.GetAbout()
        except RefreshError as error:
            raise PipelineError(None, f"Google refuses the credentials: {error}") from error

    def put(self, path: Path, name: str, packed: PackedFile | None) -> None:  # noqa: ARG002 - whole at once
        """Upload; Drive shows a file once it is whole."""
        found = self._find(name)
        if found is None:
            parent = self._folder(posixpath.dirname(name.strip("/")))
            found = self.drive.CreateFile({"title": posixpath.basename(name), "parents": [{"id": parent}]})
        found.SetContentFile(str(path))
        found.Upload()

    def _folder(self, directory: str) -> str:
        if directory not in self._folders:
            parent = self._folder(posixpath.dirname(directory))
            title = posixpath.basename(directory)
            found = self._listed(parent, title, folder=True)
            if found is None:
                found = self.drive.CreateFile({"title": title, "parents": [{"id": parent}], "mimeType": _FOLDER})
                found.Upload()
            self._folders[directory] = str(found["id"])
        return self._folders[directory]

    def _find(self, name: str) -> Any:
        return self._listed(self._folder(posixpath.dirname(name.strip("/"))), posixpath.basename(name), folder=False)

    def _listed(self, parent: str, title: str, *, folder: bool) -> Any:
        quoted = title.replace("\\", "\\\\").replace("'", "\\'")
        kind = "=" if folder else "!="
        query = f"'{parent}' in parents and trashed=false and title='{quoted}' and mimeType{kind}'{_FOLDER}'"
        return next(iter(self.drive.ListFile({"q": query}).GetList()), None)

    def size_of(self, name: str) -> int | None:
        """The size of a file."""
        found = self._find(name)
        return None if found is None else int(found["fileSize"])

    def verify(self, packed: PackedFile) -> None:
        """Size and MD5.

        Raises:
            InconsistentWriteState: they are others.
        """
        super().verify(packed)
        found = self._find(packed.name)
        if found is not None and found["md5Checksum"] != packed.md5:
            raise InconsistentWriteState(None, f"{self.shown(packed.name)} has another MD5 than {packed.md5}")


def _renew(auth: Any) -> None:
    if auth.credentials.refresh_token is None:
        raise PipelineError(
            None, "credentials: they have expired and hold no refresh_token: have them made with access_type=offline"
        )
    auth.Refresh()
