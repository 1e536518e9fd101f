"""OpenSSH's server, from Debian's packages: as an ordinary process that serves files only."""

from __future__ import annotations

import getpass
import os
import shutil
from pathlib import Path

from tests.servers.provision.cache import Cache
from tests.servers.provision.server import HOST, Instance, Server, as_user

SYSTEM = Path("/usr")
"""Where a machine has it that serves SSH anyway."""
PROGRAMS = {"sshd": "sbin/sshd", "SshdSessionPath": "lib/openssh/sshd-session", "SshdAuthPath": "lib/openssh/sshd-auth"}
"""The server, and what newer versions took out of it, by the settings that say where it is."""


class OpenSSH(Server):
    """SFTP into ``data/home``, for one user and one key: ``login(instance)`` has what a client needs.

    Nothing of the machine's own SSH is used or changed. Root's privileges are dropped: a server that keeps them wants a
    user of its own. Settings are lines of sshd_config.
    """

    name = "openssh"
    version = "debian"
    source = "apt"

    def installed(self, cache: Cache) -> bool:
        return self._root(cache) is not None

    def fetch(self, cache: Cache, folder: Path) -> None:
        cache.unpack(folder, "openssh-server")

    def command(self, instance: Instance) -> list[object]:
        data = instance.data
        if not (data / "host.key").exists():
            self._create(instance)
        found = self._root(instance.cache)
        assert found is not None
        programs = {key: data / Path(path).name for key, path in PROGRAMS.items() if (found / path).exists()}
        for key, copy in programs.items():  # into a folder that a user without rights can pass through
            if not copy.exists():
                shutil.copy(found / PROGRAMS[key], copy)
        settings = {
            "Port": instance.port,
            "ListenAddress": HOST,
            "HostKey": data / "host.key",
            "AuthorizedKeysFile": data / "authorized_keys",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "yes",  # without it, accounts that nobody can log into on a console are refused
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "Subsystem": "sftp internal-sftp",
            "ForceCommand": f"internal-sftp -d {data / 'home'}",
            **{key: path for key, path in programs.items() if key != "sshd"},
            **instance.settings,
        }
        configuration = data / "sshd_config"
        configuration.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        return [*as_user("nobody", "nogroup"), programs["sshd"], "-D", "-e", "-f", configuration]

    @staticmethod
    def login(instance: Instance) -> dict[str, object]:
        """Host, port, user, and the files of the key and of the known hosts."""
        user = getpass.getuser() if os.geteuid() else "nobody"
        return {
            "host": HOST, "port": instance.port, "user": user, "key": str(instance.data / "user.key"),
            "known_hosts": str(instance.data / "known_hosts"),
        }  # fmt: skip

    @staticmethod
    def _create(instance: Instance) -> None:
        import asyncssh

        data = instance.data
        (data / "home").mkdir()
        keys = {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("host", "user")}
        for name, key in keys.items():
            path = data / f"{name}.key"
            key.write_private_key(str(path))
            path.chmod(0o600)
        (data / "authorized_keys").write_bytes(keys["user"].export_public_key())
        host = keys["host"].export_public_key().decode()
        (data / "known_hosts").write_text(f"[{HOST}]:{instance.port} {host}")
        if as_user("nobody"):
            shutil.chown(data / "host.key", "nobody")
            shutil.chown(data / "home", "nobody")

    def _root(self, cache: Cache) -> Path | None:
        for root in (SYSTEM, self.home(cache) / "usr"):
            if (root / PROGRAMS["sshd"]).exists():
                return root
        return None
