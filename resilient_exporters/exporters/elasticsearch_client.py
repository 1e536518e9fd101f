"""The official client as a bare transport: our bytes in, status, headers and body out. Imports elasticsearch."""

from __future__ import annotations

import gzip
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import elasticsearch
import msgspec
from elastic_transport import NodeConfig, Serializer
from elastic_transport.client_utils import basic_auth_to_header, parse_cloud_id
from elasticsearch import Elasticsearch
from elasticsearch.serializer import JsonSerializer, NdjsonSerializer

from resilient_exporters.errors import HoldError, InvalidConfigError
from resilient_exporters.exporters.elasticsearch_hosts import Host

__all__ = ["MAJOR", "VERSION", "Answer", "Cluster", "Security", "cloud_host"]

log = logging.getLogger("resilient_exporters")

VERSION: Final = ".".join(map(str, elasticsearch.__version__))
MAJOR: Final = int(VERSION.partition(".")[0])
_NO_RETRIES: Final[dict[str, Any]] = {"max_retries": 0, "retry_on_status": (), "retry_on_timeout": False}
_NODES: Final = "/_nodes/_all/http?filter_path=nodes.*.http.publish_address,nodes.*.roles"
_SNIFF_TIMEOUT: Final = 2.0  # seconds: it is worth no more
_CONNECTIONS: Final = 16  # batches in flight at most, and calls that hang at most, with some to spare
_LEVEL: Final = 5  # of gzip: a quarter of the time of 9, which the client would use, for a tenth more bytes


class Answer(NamedTuple):
    """What came back, whatever it is.

    Attributes:
        status: of HTTP.
        headers: with names that ignore case.
        body: what JSON holds, or a text.
    """

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Security:
    """How the hosts are to be trusted, and how they trust us.

    Attributes:
        authorization: the header, or None.
        ca: PEM file of certificates to trust.
        certificate: PEM file. With a key in it or with ``key``: our own certificate. Else: one to trust.
        key: PEM file.
        verify: whether the host must show a certificate that we trust.
    """

    authorization: str | None
    ca: str | None
    certificate: str | None
    key: str | None
    verify: bool

    @staticmethod
    def header(credentials: tuple[str, str] | None, api_key: str | tuple[str, str] | None) -> str | None:
        """The authorization header for user and password, or for an API key (encoded, or id and key)."""
        if api_key is not None:
            pair = None if isinstance(api_key, str) else (str(api_key[0]), str(api_key[1]))
            coded = api_key if pair is None else basic_auth_to_header(pair).partition(" ")[2]
            return f"ApiKey {coded}"
        return None if credentials is None else basic_auth_to_header(credentials)

    def options(self) -> dict[str, Any]:
        """For the client.

        Raises:
            HoldError: a file is not there or cannot be read.
        """
        for name in ("ca", "certificate", "key"):
            path = getattr(self, name)
            if path is not None and not os.access(path, os.R_OK):
                why = "cannot be read" if Path(path).exists() else "is not there"
                raise HoldError(f"{_OPTIONS[name]}={path!r}: the file {why}; put it there, or correct the path")
        found: dict[str, Any] = {"verify_certs": self.verify, "ssl_show_warn": False}
        ca, certificate = self.ca, self.certificate
        if certificate is not None and (self.key is not None or b"PRIVATE KEY" in Path(certificate).read_bytes()):
            found.update({"client_cert": certificate, "client_key": self.key or certificate})
        else:
            ca = ca or certificate
        if ca is not None and self.verify:
            found["ca_certs"] = ca
        return found


_OPTIONS: Final = {"ca": "ssl_ca_certs", "certificate": "ssl_certfile", "key": "ssl_keyfile"}


class Cluster:
    """The hosts, and a client for them while there is something to deliver.

    Args:
        hosts: where it is.
        security: TLS and credentials.
        sniff: ask for the other nodes when connecting. That this fails is no reason not to go on.
        compress: gzip what is sent, and ask for gzipped answers.
        extra: further keywords for the client.
    """

    def __init__(
        self, hosts: Callable[[], Sequence[Host]], security: Security, *, sniff: bool, compress: bool,
        extra: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self._hosts = hosts
        self._security = security
        self._sniff = sniff
        self._extra = _checked(extra)
        self._lock = threading.Lock()
        self._others = 0
        self._ours: Elasticsearch | None = None
        self._users: Elasticsearch | None = None
        self._headers = {
            "accept": f"application/vnd.elasticsearch+json; compatible-with={MAJOR}",
            "content-type": f"application/vnd.elasticsearch+x-ndjson; compatible-with={MAJOR}",
        }
        self._compress = compress
        if compress:
            self._headers.update({"content-encoding": "gzip", "accept-encoding": "gzip"})

    @property
    def client(self) -> Elasticsearch:
        """A client for the program's own use; deliveries have one of their own."""
        with self._lock:
            if self._users is None:
                self._users = self._made()
            return self._users

    def connect(self) -> None:
        """Make a client for deliveries.

        Raises:
            HoldError: something has to be mended here first.
        """
        made = self._made()
        if self._sniff:
            try:
                self._add_nodes(made)
            except Exception as error:  # noqa: BLE001 - the hosts that were given will do
                log.info("the nodes cannot be asked for (sniff_on_start), going on with the hosts given: %s", error)
        with self._lock:
            self._ours = made  # what was there is another process's, after a fork: it is not closed

    def close(self) -> None:
        """Let go of the connections of deliveries."""
        with self._lock:
            client, self._ours = self._ours, None
        if client is not None:
            client.close()

    def close_client(self) -> None:
        """Close the program's own client, if it has asked for one."""
        with self._lock:
            client, self._users = self._users, None
        if client is not None:
            client.close()

    def bulk(self, target: str, body: bytes, timeout: float | None) -> Answer:
        """Send a request to the bulk API.

        Args:
            target: path and query.
            body: lines of JSON.
            timeout: seconds without a sign of life, or None.

        Raises:
            elastic_transport.TransportError: no answer.
        """
        return self._request("POST", target, gzip.compress(body, _LEVEL) if self._compress else body, timeout)

    def sources(self, wanted: Sequence[tuple[str, str, str | None]], timeout: float | None) -> Answer:
        """Ask for documents by index, id and routing."""
        documents = [
            {"_index": index, "_id": name, **({} if routing is None else {"routing": routing})}
            for index, name, routing in wanted
        ]
        body = msgspec.json.encode({"docs": documents})
        return self._request("POST", "/_mget", gzip.compress(body) if self._compress else body, timeout, "json")

    def _request(self, method: str, target: str, body: bytes, timeout: float | None, kind: str = "x-ndjson") -> Answer:
        with self._lock:
            if self._ours is None:
                self._ours = self._made()
            transport = self._ours.transport
        headers = self._headers
        if kind != "x-ndjson":
            headers = {**headers, "content-type": headers["accept"]}
        try:
            meta, answer = transport.perform_request(
                method, target, body=body, headers=headers, request_timeout=timeout,
                **{**_NO_RETRIES, "max_retries": self._others},
            )  # fmt: skip
        except elasticsearch.ConnectionError:
            self._sniff = False  # what was sniffed may be out of reach from here: go on with what was given
            raise
        return Answer(meta.status, meta.headers, answer)

    def _add_nodes(self, client: Elasticsearch) -> None:
        pool = client.transport.node_pool
        base = pool.all()[0].config
        meta, answer = client.transport.perform_request(
            "GET", _NODES, headers={"accept": self._headers["accept"]}, request_timeout=_SNIFF_TIMEOUT, **_NO_RETRIES
        )
        nodes = answer.get("nodes", {}) if meta.status == 200 and isinstance(answer, dict) else {}
        for node in nodes.values():
            name, _, port = node["http"]["publish_address"].rpartition("/")[2].rpartition(":")
            fqdn = node["http"]["publish_address"].rpartition("/")[0]  # "name/address:port", where a name was set
            if node.get("roles") != ["master"]:
                pool.add(base.replace(host=fqdn or name.strip("[]"), port=int(port)))
        if not nodes:
            log.info("the nodes cannot be asked for (sniff_on_start), going on with the hosts given: %s", meta.status)

    def _made(self) -> Elasticsearch:
        headers = {} if self._security.authorization is None else {"authorization": self._security.authorization}
        headers.update(self._extra.get("headers", {}))
        hosts = self._hosts()
        # Ours decide when to try again. Only a node that cannot be reached is passed over for the next one at once.
        self._others = len(hosts) - 1
        nodes = [
            NodeConfig(
                scheme=host.scheme,
                host=host.name,
                port=host.port,
                path_prefix=host.path,
                headers=headers,
                connections_per_node=_CONNECTIONS,
                **(self._security.options() if host.scheme == "https" else {}),
            )
            for host in hosts
        ]
        return Elasticsearch(
            nodes,
            serializers={each.mimetype: each for each in _SERIALIZERS},
            **_NO_RETRIES,
            **{name: value for name, value in self._extra.items() if name != "headers"},
        )


def cloud_host(cloud_id: str) -> Host:
    """Where a deployment in Elastic Cloud is.

    Raises:
        HoldError: this is no id of one.
    """
    try:
        address = parse_cloud_id(cloud_id).es_address
    except ValueError:
        address = None
    if address is None or not all(address):
        raise HoldError(f'cloud_id={cloud_id!r} is none: copy it from the deployment ("name:dXMtZWFzd…")')
    return Host("https", address[0], address[1])


_OURS: Final = {
    "api_key": "api_key", "basic_auth": "username and password", "cloud_id": "cloud_id", "hosts": "hosts",
    "http_auth": "username and password", "http_compress": "http_compress", "request_timeout": "timeout",
    "timeout": "timeout", "sniff_on_start": "sniff_on_start", "verify_certs": "verify_certs",
    "bearer_auth": 'headers={"authorization": "Bearer …"}',
}  # fmt: skip


def _checked(extra: Mapping[str, Any]) -> dict[str, Any]:
    import inspect

    known = set(inspect.signature(Elasticsearch).parameters) - {"_transport"}
    for name in extra:
        if name in _OURS:
            raise InvalidConfigError(f"client_options: {name!r} is said by the option {_OURS[name]}")
        if name not in known:
            raise InvalidConfigError(f"client_options: the client has no keyword {name!r}")
    return dict(extra)


class _Json(JsonSerializer):
    """Reads faster, and gives a text where something in between answers with what is no JSON."""

    def loads(self, data: bytes) -> Any:
        if not data:
            return None
        try:
            return msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            try:
                return super().loads(data)
            except (elasticsearch.SerializationError, UnicodeDecodeError):
                return data.decode(errors="replace")


class _CompatibleJson(_Json):
    mimetype = "application/vnd.elasticsearch+json"


class _Lines(NdjsonSerializer):
    """Bytes are sent as they are."""

    mimetype = "application/vnd.elasticsearch+x-ndjson"

    def dumps(self, data: Any) -> bytes:
        return data if isinstance(data, bytes) else super().dumps(data)


class _Anything(Serializer):
    """Whatever a proxy has to say."""

    mimetype = "application/*"

    def loads(self, data: bytes) -> str:
        return data.decode(errors="replace")

    def dumps(self, data: Any) -> bytes:
        raise elasticsearch.SerializationError(f"only JSON is sent, not {type(data).__name__}")


class _AnyText(_Anything):
    mimetype = "text/*"


_SERIALIZERS: Final = (_Json(), _CompatibleJson(), _Lines(), _Anything(), _AnyText())
