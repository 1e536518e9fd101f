"""Where a MongoDB deployment is and how it is talked to; clients of pymongo made from that."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from resilient_exporters.errors import InvalidConfigError, MissingConfigError

if TYPE_CHECKING:
    from pymongo import MongoClient

__all__ = ["URI_OPTIONS", "ClientFactory"]

URI_OPTIONS: Final = frozenset({
    "appname", "authmechanism", "authmechanismproperties", "authsource", "compressors", "connecttimeoutms",
    "directconnection", "heartbeatfrequencyms", "loadbalanced", "localthresholdms", "maxconnecting", "maxidletimems",
    "maxpoolsize", "maxstalenessseconds", "minpoolsize", "proxyhost", "proxypassword", "proxyport", "proxyusername",
    "readconcernlevel", "readpreference", "readpreferencetags", "replicaset", "retryreads", "retrywrites",
    "servermonitoringmode", "serverselectiontimeoutms", "serverselectiontryonce", "sockettimeoutms", "srvmaxhosts",
    "srvservicename", "ssl", "timeoutms", "tls", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames", "tlscafile",
    "tlscertificatekeyfile", "tlscertificatekeyfilepassword", "tlscrlfile", "tlsdisableocspendpointcheck",
    "tlsinsecure", "w", "waitqueuetimeoutms", "wtimeoutms", "journal", "zlibcompressionlevel",
})  # fmt: skip
"""Options of a MongoDB connection string, in lower case (drivers' specification "URI Options")."""

_SHARE: Final = 1 / 3
"""Part of the time-out that looking for a server, connecting, or one answer may take, each."""


class ClientFactory:
    """Makes clients. Making one touches no network and starts no thread; the first command through it does.

    Args:
        hosts: host name or address, "host:port", or several of these; None: `uri` says it.
        port: for hosts without one.
        uri: MongoDB connection string ("mongodb://…", "mongodb+srv://…").
        timeout: seconds that an attempt may take; 0: no limit, pymongo's own time-outs hold.
        options: pymongo's options, by its names. They win over those of the URI. None values are left out.

    Attributes:
        address: hosts and ports, without account.
        database: the one that the URI names, or None.
        collection: likewise ("mongodb://host/database.collection").
        srv: whether the hosts have to be looked up in DNS.
        write_timeout: whether a ``wtimeout`` was asked for, which pymongo ignores under a time-out of its own.

    Raises:
        MissingConfigError: neither hosts nor URI.
        InvalidConfigError: an option has a value it cannot have.
    """

    def __init__(
        self,
        hosts: str | Sequence[str] | None,
        port: object,
        uri: str | None,
        timeout: float,
        options: Mapping[str, Any],
    ) -> None:
        if isinstance(hosts, str) and "://" in hosts and uri is None:
            hosts, uri = None, hosts
        if hosts is None and uri is None:
            raise MissingConfigError(None, "target_ip: give the host of the server, or uri='mongodb://…'")
        if hosts is not None and uri is not None:
            raise InvalidConfigError(None, "target_ip and uri are both given: give one of them")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise InvalidConfigError(None, f"target_port={port!r}: must be a number from 1 to 65535")
        self.database: str | None = None
        self.collection: str | None = None
        in_uri: set[str] = set()
        if uri is not None:
            in_uri = self._read(uri)
            self._host: str | list[str] = uri
        else:
            found: list[Any] = [hosts] if isinstance(hosts, str) else list(hosts) if isinstance(hosts, Sequence) else []
            if not found or not all(isinstance(each, str) and each.strip() for each in found):
                raise InvalidConfigError(
                    None, f"target_ip={hosts!r}: must be a host name or address, or a list of them"
                )
            self._host = [_bracketed(each.strip()) for each in found]
            self.address = ",".join(_with_port(each, port) for each in self._host)
        self.srv = isinstance(self._host, str) and self._host.lower().startswith("mongodb+srv://")
        self._port = port
        self._options = self._complete(options, in_uri, timeout)
        self.write_timeout = False
        self._check()

    def make(self) -> MongoClient[Any]:
        """A client that is not connected yet."""
        import pymongo

        return pymongo.MongoClient(self._host, self._port, **self._options)

    def check_names(self, database: str | None, collection: str | None) -> None:
        """Let pymongo look at names.

        Raises:
            InvalidConfigError: MongoDB has no such names.
        """
        import pymongo
        from pymongo.errors import InvalidName

        option, name = "default_db", database
        with pymongo.MongoClient[Any](connect=False) as client:
            try:
                found = client[database or "any"]
                option, name = "default_collection", collection
                found[collection or "any"]
            except InvalidName as error:
                raise InvalidConfigError(None, f"{option}={name!r}: {error}") from None

    def _read(self, uri: str) -> set[str]:
        """Take from a URI what we need to know. Returns the names of its options, in lower case."""
        match = re.fullmatch(r"(mongodb(?:\+srv)?)://([^/?]*)(?:/([^?]*))?(?:\?(.*))?", uri, re.IGNORECASE | re.DOTALL)
        if match is None or not match[2].rpartition("@")[2]:
            # Not shown: a password may stand in it, in any place if it was not percent-encoded.
            raise InvalidConfigError(
                None,
                "uri: is no MongoDB connection string; right would be mongodb://user:password@host:27017/database, "
                "with @ : / % in user and password percent-encoded",
            )
        hosts = match[2].rpartition("@")[2]
        if "+" in match[1] and re.search(r"[,:\]]", hosts):
            raise InvalidConfigError(
                None, f"uri: mongodb+srv://{hosts} is one name without a port, which DNS knows; or use mongodb://"
            )
        self.address = hosts if "+" in match[1] else ",".join(_with_port(each, 27017) for each in hosts.split(","))
        database, _, collection = unquote(match[3] or "").partition(".")
        self.database, self.collection = database or None, collection or None
        return {name.lower() for name, _ in parse_qsl(match[4] or "", keep_blank_values=True)}

    def _complete(self, given: Mapping[str, Any], in_uri: set[str], timeout: float) -> dict[str, Any]:
        options = {name: value for name, value in given.items() if value is not None}
        if timeout:
            known = in_uri | {name.lower() for name in options}
            for name in ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"):
                if name.lower() not in known:
                    options[name] = max(1, int(timeout * _SHARE * 1000))
        # One retry loop: pymongo's would send again within the attempt, beyond what the breaker and the time-out know.
        return {"tz_aware": True, "uuidRepresentation": "standard", **options} | {
            "connect": False, "retryWrites": False, "retryReads": False,
        }  # fmt: skip

    def _check(self) -> None:
        """Let pymongo look at the options: all but those for which it would open certificates or ask DNS."""
        import pymongo
        from pymongo.errors import PyMongoError

        host = self._host
        if isinstance(host, str):
            host = re.sub(r"(?i)^mongodb\+srv:", "mongodb:", host)
            host = re.sub(r"(?i)(?<=[?&])(tls|ssl|srv)\w*=[^&]*&?", "", host)
        options = {name: value for name, value in self._options.items() if not name.lower().startswith("tls")}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pymongo.MongoClient[Any](host, self._port, **options) as client:
                    concern = client.write_concern
        except (PyMongoError, ValueError, TypeError, Warning) as error:
            raise InvalidConfigError(None, f"MongoDB options: {error}") from None
        if not concern.acknowledged:
            raise InvalidConfigError(
                None, "w=0: the server would not say what it took; must be 1 or more, or 'majority'"
            )
        self.write_timeout = "wtimeout" in concern.document


def _bracketed(host: str) -> str:
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def _with_port(host: str, port: int) -> str:
    bare = host.rpartition("]")[2] if host.startswith("[") else host
    return host if ":" in bare or host.endswith(".sock") else f"{host}:{port}"
