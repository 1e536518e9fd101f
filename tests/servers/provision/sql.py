"""SQL servers from Debian's packages."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from tests.servers.provision.cache import Cache, run
from tests.servers.provision.server import HOST, Instance, Server, as_user


class PostgreSQL(Server):
    """A cluster of its own, any version Debian has. User postgres without a password, or user and password.

    Settings are those of postgresql.conf.
    """

    name = "postgresql"
    version = "debian"
    source = "apt"
    stop_signal = signal.SIGINT  # ends the connections of clients instead of waiting for them

    def installed(self, cache: Cache) -> bool:
        return bool(self._programs())

    def fetch(self, cache: Cache, folder: Path) -> None:
        cache.apt("postgresql")

    def command(self, instance: Instance) -> list[object]:
        programs, cluster = self._programs()[-1], instance.data / "cluster"
        if not cluster.exists():
            self._create(programs, cluster, instance)
        settings = {
            "fsync": "off",  # what a power cut takes is not PostgreSQL's test but ours; a crash takes nothing
            "listen_addresses": HOST,
            "port": instance.port,
            "shared_buffers": "32MB",
            "unix_socket_directories": "",
            **instance.settings,
        }
        options = [f"--{key}={value}" for key, value in settings.items()]
        return [*as_user("postgres"), programs / "postgres", "-D", cluster, *options]

    def ready(self, instance: Instance) -> bool:
        return "ready to accept connections" in instance.logged()

    def _create(self, programs: Path, cluster: Path, instance: Instance) -> None:
        secret = instance.data / "password"
        secret.write_text(instance.password or "postgres")
        secret.chmod(0o600)
        cluster.mkdir(mode=0o700)
        if as_user("postgres"):
            shutil.chown(cluster, "postgres", "postgres")
            shutil.chown(secret, "postgres", "postgres")
        check = "scram-sha-256" if instance.password else "trust"
        user = ("-U", instance.user or "postgres", f"--auth={check}", f"--pwfile={secret}")
        initdb = (programs / "initdb", "-D", cluster, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        run(*as_user("postgres"), *initdb, *user, cwd=instance.data)

    @staticmethod
    def _programs() -> list[Path]:
        """The folders of the versions here, the newest last."""
        found = [program.parent for program in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
        return sorted(found, key=lambda folder: int(folder.parent.name))


class MariaDB(Server):
    """A data folder of its own. User root without a password, and user and password if given.

    Settings are options of mariadbd. A row above max_allowed_packet looks like a lost connection.
    """

    name = "mariadb"
    version = "debian"
    source = "apt"

    def installed(self, cache: Cache) -> bool:
        return Path("/usr/sbin/mariadbd").exists()

    def fetch(self, cache: Cache, folder: Path) -> None:
        cache.apt("mariadb-server")

    def command(self, instance: Instance) -> list[object]:
        files = instance.data / "files"
        user = [] if os.geteuid() else ["--user=root"]
        if not files.exists():
            method = "--auth-root-authentication-method=normal"
            run("mariadb-install-db", "--no-defaults", f"--datadir={files}", "--skip-test-db", method, *user)
        return [
            *("/usr/sbin/mariadbd", "--no-defaults", f"--datadir={files}", *user),
            *(f"--bind-address={HOST}", f"--port={instance.port}", "--skip-name-resolve"),
            "--socket=../socket",  # relative to the data folder: the path of a socket has 107 bytes at most
            *(f"--pid-file={instance.data / 'pid'}", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M"),
            *(f"--{key}={value}" for key, value in instance.settings.items()),
        ]

    def ready(self, instance: Instance) -> bool:
        return "ready for connections" in instance.logged()

    def prepare(self, instance: Instance) -> None:
        if instance.user:
            grant = "CREATE OR REPLACE USER `{0}`@`%` IDENTIFIED BY '{1}'; GRANT ALL ON *.* TO `{0}`@`%`"
            client = ("mariadb", "--no-defaults", "--protocol=tcp", f"--host={HOST}", f"--port={instance.port}")
            run(*client, "--user=root", "-e", grant.format(instance.user, instance.password or ""))
