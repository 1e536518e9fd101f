"""Servers that speak MongoDB's wire protocol; a real mongod is in no package registry.

FerretDB is right about errors, users and TLS, but closes the connection on NaN and refuses arrays in arrays.
mongo-java keeps every BSON type, but has no users and counts refused documents in ``nInserted``.
failcommand in front of either fails the way a real cluster does.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.servers.provision.cache import Cache, run
from tests.servers.provision.server import HOST, Instance, Server

HERE = Path(__file__).parent


class FerretDB(Server):
    """FerretDB 1 over SQLite. Takes user, password and tls; settings are its flags (``repl-set-name``)."""

    name = "ferretdb"
    version = "v1.24.0"
    source = "go"

    def fetch(self, cache: Cache, folder: Path) -> None:
        cache.need_go(21)  # from this one on, go fetches itself in the version that a module asks for
        work = folder / "work"
        work.mkdir()
        (work / "go.mod").write_text("module provision\n")
        module = cache.go(work, "mod", "download", "-json", f"github.com/FerretDB/FerretDB@{self.version}")
        # Its release process writes a file that the program panics without, and the module cache is not to be changed.
        source = work / "source"
        shutil.copytree(json.loads(module)["Dir"], source)
        run("chmod", "-R", "u+w", source)
        (source / "build" / "version" / "version.txt").write_text(self.version)
        cache.go(work, "build", "-ldflags=-s -w", "-o", folder / self.name, "./cmd/ferretdb", cwd=source)
        shutil.rmtree(work)

    def command(self, instance: Instance) -> list[object]:
        files = instance.data / "sqlite"
        files.mkdir(exist_ok=True)
        address = f"{HOST}:{instance.port}"
        listen: list[object] = [f"--listen-addr={address}"]
        if instance.tls:
            listen = ["--listen-addr=", f"--listen-tls={address}", f"--listen-tls-cert-file={instance.certificate}"]
            listen += [f"--listen-tls-key-file={instance.data / 'server.key'}"]
        users: list[object] = []
        if instance.user:
            users = ["--test-enable-new-auth", "--setup-database=admin"]
            users += [f"--setup-username={instance.user}", f"--setup-password={instance.password}"]
        return [
            *(self.home(instance.cache) / self.name, "--handler=sqlite", f"--sqlite-url=file:{files}/"),
            *(f"--state-dir={instance.data}", "--debug-addr=-", "--telemetry=disable", "--log-level=warn"),
            *(f"--{key}={value}" for key, value in instance.settings.items()),
            *listen,
            *users,
        ]


class MongoJava(Server):
    """mongo-java-server over H2. Takes no users and no TLS; ``oplog`` is its only setting. Needs a JDK 17."""

    name = "mongo-java"
    release = "1.47.0"
    version = f"{release}-2"  # and that of our program around it
    source = "maven"

    def fetch(self, cache: Cache, folder: Path) -> None:
        group = "de.bwaldvogel:mongo-java-server"
        cache.jars(folder, f"{group}:{self.release}", f"{group}-h2-backend:{self.release}")
        run(cache.jdk(17) / "bin" / "javac", "-cp", f"{folder}/*", "-d", folder, HERE / "java" / "MongoJava.java")

    def command(self, instance: Instance) -> list[object]:
        home = self.home(instance.cache)
        java = (instance.cache.jdk(17) / "bin" / "java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        program = (*java, "-cp", f"{home}/*:{home}", "MongoJava")
        return [*program, instance.port, instance.data / "mongo.h2", *instance.settings]


class FailCommand(Server):
    """MongoDB's fail point as a proxy in front of `upstream`: see failcommand.py. Needs pymongo's bson."""

    name = "failcommand"
    version = "ours"
    source = "pip"

    def installed(self, cache: Cache) -> bool:
        return True

    def fetch(self, cache: Cache, folder: Path) -> None:
        """It is a file of this folder."""

    def command(self, instance: Instance) -> list[object]:
        return [sys.executable, HERE / "failcommand.py", instance.port, instance.upstream]
