"""Mosquitto, an MQTT broker, from Debian's packages."""

from __future__ import annotations

import os
from pathlib import Path

from tests.servers.provision.cache import Cache, run
from tests.servers.provision.server import HOST, Instance, Server

PROGRAM = Path("/usr/sbin/mosquitto")


class Mosquitto(Server):
    """MQTT 3.1.1 and 5; sessions and retained messages are kept on disk. Takes user, password and tls.

    Settings are lines of mosquitto.conf.
    """

    name = "mosquitto"
    version = "debian"
    source = "apt"

    def installed(self, cache: Cache) -> bool:
        return PROGRAM.exists()

    def fetch(self, cache: Cache, folder: Path) -> None:
        cache.apt("mosquitto")

    def command(self, instance: Instance) -> list[object]:
        lines = [f"listener {instance.port} {HOST}", "persistence true", f"persistence_location {instance.data}/"]
        lines += ["autosave_interval 1", *self._access(instance)]
        if instance.tls:
            lines += [f"keyfile {instance.data / 'server.key'}", f"certfile {instance.certificate}"]
        if not os.geteuid():
            lines.append("user root")
        lines += [f"{key} {value}" for key, value in instance.settings.items()]
        settings = instance.data / "mosquitto.conf"
        settings.write_text("\n".join(lines) + "\n")
        return [PROGRAM, "-c", settings]

    @staticmethod
    def _access(instance: Instance) -> list[str]:
        if not instance.user:
            return ["allow_anonymous true"]
        users = instance.data / "users"
        users.touch(mode=0o600)
        run("mosquitto_passwd", "-b", users, instance.user, instance.password)
        return ["allow_anonymous false", f"password_file {users}"]
