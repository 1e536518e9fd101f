"""MongoDB: FerretDB with the failCommand proxy."""

from __future__ import annotations

import shutil
from typing import Any

import pymongo

from tests.servers.destinations.destination import PASSWORD, Destination
from tests.servers.provision import HOST
from tests.servers.small_disk import SmallDisk


class MongoDB(Destination):
    """FerretDB; what it never answers comes from the failCommand proxy in front of it."""

    name = "mongodb"
    cls = "MongoDBExporter"

    def started(self) -> None:
        self.server = self._own_server("ferretdb", user="app", password=PASSWORD)
        self._failing = self._own_server("failcommand", upstream=self.server.port)

    def close(self) -> None:
        self._failing.remove()
        super().close()

    def port(self, fault: str) -> int:
        return self._failing.port if fault in ("missing_right", "read_only", "dropped_replies") else self.server.port

    def fresh(self, name: str) -> None:
        """It is made by the first write."""

    def options(self) -> dict[str, Any]:
        return {
            "target_ip": HOST, "target_port": self.link.port, "username": "app", "password": PASSWORD,
            "default_db": self.place, "default_collection": "t",
        }  # fmt: skip

    def numbers(self) -> list[int]:
        with self._client() as client:
            return [document["n"] for document in client[self.place].t.find({}, {"n": 1})]

    def _client(self, port: int | None = None) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient(HOST, port or self.server.port, username="app", password=PASSWORD)

    def _fail(self, wrong: bool, **data: Any) -> None:
        mode, point = "alwaysOn" if wrong else "off", {"failCommands": ["insert"], **data}
        with self._client(self._failing.port) as client:
            client.admin.command("configureFailPoint", "failCommand", mode=mode, data=point)

    def wrong_password(self, wrong: bool) -> None:
        if wrong:
            with self._client() as client:
                client.admin.command("updateUser", "app", pwd="another")
        else:
            with pymongo.MongoClient[dict[str, Any]](
                HOST, self.server.port, username="app", password="another"
            ) as client:
                client.admin.command("updateUser", "app", pwd=PASSWORD)
        self._again()

    def missing_right(self, wrong: bool) -> None:
        self._fail(wrong, errorCode=13)

    def read_only(self, wrong: bool) -> None:
        """A replica set without a primary."""
        self._fail(wrong, errorCode=10107)

    def dropped_replies(self, wrong: bool) -> None:
        self._fail(wrong, dropReply=True)

    def full_disk(self, wrong: bool) -> None:
        if self.disk is None:
            files = self.server.data / "sqlite"
            self.server.stop()
            kept = sum(file.stat().st_size for file in files.rglob("*") if file.is_file())  # of the tests before
            self.disk = SmallDisk(self.server.data / "small", 128 + (kept >> 20))
            shutil.move(files, self.disk.folder / "sqlite")
            files.symlink_to(self.disk.folder / "sqlite")
            self.server.start()
        self.disk.fill() if wrong else self.disk.free()
