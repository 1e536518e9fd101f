"""Bad links: latency, narrow lines, slices, resets, silence, cuts."""

from __future__ import annotations

import http.client
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

from tests.servers.provision.cache import Cache
from tests.servers.provision.server import HOST, Instance, Server, answers, free_port


class Toxiproxy(Server):
    """A TCP proxy driven over HTTP; `Link` is its client. It cannot lose or reorder packets."""

    name = "toxiproxy"
    version = "v2.5.0"
    source = "go"

    def fetch(self, cache: Cache, folder: Path) -> None:
        work = folder / "work"
        work.mkdir()
        cache.go(work, "install", "-ldflags=-s -w", f"github.com/Shopify/toxiproxy/v2/cmd/server@{self.version}")
        (work / "server").rename(folder / self.name)
        shutil.rmtree(work)

    def command(self, instance: Instance) -> list[object]:
        program = self.home(instance.cache) / self.name
        return ["env", "LOG_LEVEL=warn", program, "-host", HOST, "-port", instance.port]

    def ready(self, instance: Instance) -> bool:
        return answers(instance.port, "/version")


class Link:
    """A link to a server, as bad as a test makes it: connect to `port` instead of the server's own.

    Args:
        toxiproxy: the proxy server.
        upstream: port of the server at the other end.
    """

    _numbers = itertools.count(1)

    def __init__(self, toxiproxy: Instance, upstream: int) -> None:
        self._toxiproxy = toxiproxy
        self._name = f"link{next(self._numbers)}"
        self.port = free_port()
        target = {"name": self._name, "listen": f"{HOST}:{self.port}", "upstream": f"{HOST}:{upstream}"}
        self._call("POST", "/proxies", target)

    def cut(self) -> None:
        """Refuse and break all connections until `mend`."""
        self._call("POST", f"/proxies/{self._name}", {"enabled": False})

    def mend(self) -> None:
        """Take away every fault."""
        for toxic in self._call("GET", f"/proxies/{self._name}/toxics"):
            self._call("DELETE", f"/proxies/{self._name}/toxics/{toxic['name']}")
        self._call("POST", f"/proxies/{self._name}", {"enabled": True})

    def fault(self, kind: str, *, stream: str = "downstream", **attributes: int) -> None:
        """Add a toxic.

        Args:
            kind: latency (latency, jitter: ms), bandwidth (rate: KB/s), slow_close (delay: ms), timeout (timeout: ms,
                0: silence for ever), reset_peer (timeout: ms), slicer (average_size, size_variation: bytes,
                delay: us) or limit_data (bytes).
            stream: "downstream", what the client reads, or "upstream", what it writes.
            **attributes: those of the kind.
        """
        toxic = {"name": f"{kind}-{stream}", "type": kind, "stream": stream, "attributes": attributes}
        self._call("POST", f"/proxies/{self._name}/toxics", toxic)

    def close(self) -> None:
        """Remove the link."""
        self._call("DELETE", f"/proxies/{self._name}")

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(HOST, self._toxiproxy.port, timeout=10)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"User-Agent": "provision"})  # it turns browsers away
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise OSError(f"toxiproxy answers {answer.status} to {method} {path}: {content.decode()}")
        return json.loads(content) if content else None
