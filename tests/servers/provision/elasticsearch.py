"""Elasticsearch, one node, from the jars its makers publish.

There are jars of the engine and of the HTTP layer, and none of the start script, of ``GET /`` and of x-pack: the first
two are in java/, the third is missing here (no users, no API keys, no ILM, no scripts). For credentials put nginx in
front. 8.19.4 and 9.0.8 are the newest versions whose HTTP layer is published.
"""

from __future__ import annotations

from pathlib import Path

from tests.servers.provision.cache import Cache, run
from tests.servers.provision.server import HOST, Instance, Server, answers

JAVA = Path(__file__).parent / "java"
DESCRIPTOR = """\
name={name}
description={name}
version={version}
elasticsearch.version={version}
java.version={java}
classname={classname}
extended.plugins=
has.native.controller=false
{more}
"""


class Elasticsearch(Server):
    """A node with ``settings`` of elasticsearch.yml and a ``heap`` of so many MB. Needs a JDK 17 (8) or 21 (9)."""

    source = "maven"
    ports = 2
    start_timeout = 120.0
    java: int
    heap = 384

    def fetch(self, cache: Cache, folder: Path) -> None:
        jdk = cache.jdk(self.java)
        core, netty, root = folder / "core", folder / "modules" / "transport-netty4", folder / "modules" / "root"
        cache.jars(core, f"org.elasticsearch:elasticsearch:{self.version}")
        cache.jars(netty, f"org.elasticsearch.plugin:transport-netty4:{self.version}")
        for jar in netty.glob("*.jar"):  # a module may not hold what the core has already
            if (core / jar.name).exists():
                jar.unlink()
        module = "org.elasticsearch.transport.netty4"
        self._describe(netty, f"{module}.Netty4Plugin", f"modulename={module}")
        compiler = (jdk / "bin" / "javac", "--release", self.java, "-cp", f"{core}/*", "-d")
        run(*compiler, folder / "launcher", JAVA / "Node.java")
        run(*compiler, folder / "classes", JAVA / "Root.java")
        root.mkdir()
        run(jdk / "bin" / "jar", "cf", root / "root.jar", "-C", folder / "classes", ".")
        self._describe(root, "provision.Root")

    def command(self, instance: Instance) -> list[object]:
        installed, home = self.home(instance.cache), instance.data / "home"
        for name in ("config", "lib", "logs", "plugins"):
            (home / name).mkdir(parents=True, exist_ok=True)
        if not (home / "modules").is_symlink():
            (home / "modules").symlink_to(installed / "modules")
        settings = {
            "cluster.name": "test",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            "discovery.type": "single-node",
            "http.port": instance.port,
            "network.host": HOST,
            "node.name": "node",
            "transport.port": instance.port + 1,
            **instance.settings,
        }
        lines = [f"{key}: {value}\n" for key, value in settings.items()]
        (home / "config" / "elasticsearch.yml").write_text("".join(lines))
        codecs = "org.apache.lucene.core/org.apache.lucene.codecs.lucene99=org.elasticsearch.server"
        # C1 only and the serial collector: a node that lives for a minute pays off no optimizer.
        heap = (f"-Xms{self.heap}m", f"-Xmx{self.heap}m", "-XX:+UseSerialGC")
        java = (instance.cache.jdk(self.java) / "bin" / "java", *heap)
        return [
            *(*java, "-XX:TieredStopAtLevel=1"),
            *("--module-path", installed / "core", "--add-modules", "ALL-MODULE-PATH,jdk.net,jdk.management.agent"),
            *("--add-opens", codecs, f"-Des.logs.base_path={home / 'logs'}", "-Djava.library.path="),
            *("-cp", installed / "launcher", "Node", home),
        ]

    def ready(self, instance: Instance) -> bool:
        return answers(instance.port, "/_cluster/health")

    def _describe(self, module: Path, classname: str, more: str = "") -> None:
        text = DESCRIPTOR.format(name=module.name, version=self.version, java=self.java, classname=classname, more=more)
        (module / "plugin-descriptor.properties").write_text(text)


class Elasticsearch8(Elasticsearch):
    """Takes the clients of version 8; those of 9 get a 400."""

    name = "elasticsearch8"
    version = "8.19.4"
    java = 17


class Elasticsearch9(Elasticsearch):
    """Takes the clients of versions 8 and 9."""

    name = "elasticsearch9"
    version = "9.0.8"
    java = 21


def python_client_9(cache: Cache) -> Path:
    """A folder with version 9 of the Python client. Version 8 is the one that works with both servers."""
    folder = cache.root / "elasticsearch-client-9"
    if not folder.exists():
        with cache.installing(folder.name) as partial:
            cache.pip(partial, "elasticsearch>=9,<10")
    return folder
