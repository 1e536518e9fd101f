"""Where an Elasticsearch cluster is, from the many ways to say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from resilient_exporters.errors import InvalidConfigError

__all__ = ["Host", "parse_hosts"]


@dataclass(frozen=True, slots=True)
class Host:
    """One node, or a proxy in front of some.

    Attributes:
        scheme: "http" or "https".
        name: host name or address, without brackets.
        port: TCP port.
        path: what stands before every path of the API; without a slash at the end.
        credentials: user and password of a URL that has some.
    """

    scheme: str
    name: str
    port: int
    path: str = ""
    credentials: tuple[str, str] | None = field(default=None, repr=False, compare=False)

    @property
    def url(self) -> str:
        """The URL, without credentials."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{self.scheme}://{name}:{self.port}{self.path}"


def parse_hosts(given: Any, option: str, *, port: int, tls: bool) -> tuple[Host, ...]:
    """The hosts of an option.

    Args:
        given: one or more of: a name, a name with a port, a URL, a mapping with host, port, scheme or use_ssl, and
            path_prefix or url_prefix.
        option: name of the option, for the error.
        port: where none is said. A URL with https and without a port means 443, unless this is not 9200.
        tls: whether https is meant where no scheme is said.

    Raises:
        InvalidConfigError: one of them is none of these.
    """
    many = [given] if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable) else list(given)
    if not many:
        raise InvalidConfigError(f'{option}={given!r}: give at least one host, such as "10.0.0.5" or "https://es:9200"')
    return tuple(dict.fromkeys(_host(one, option, port, tls) for one in many))


def _host(given: Any, option: str, port: int, tls: bool) -> Host:
    if isinstance(given, Mapping):
        return _from_mapping(given, option, port, tls)
    if not isinstance(given, str) or not given.strip():
        raise InvalidConfigError(
            f'{option}={given!r} is no host; give a name, a URL, or a mapping such as {{"host": "es", "port": 9200}}'
        )
    text = given.strip()
    url = "://" in text
    if not url and text.count(":") > 1 and "[" not in text:
        text = f"[{text}]"  # an IPv6 address
    try:
        parts = urlsplit(text if url else f"//{text}")
        own_port = parts.port
    except ValueError as error:
        raise InvalidConfigError(f"{option}: {_hidden(given)!r} is no host: {error}") from None
    scheme = parts.scheme or ("https" if tls else "http")
    if scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise InvalidConfigError(f'{option}: {_hidden(given)!r} is no host; right would be "es" or "https://es:9200"')
    if own_port is None:
        own_port = 443 if url and scheme == "https" and port == 9200 else port
    credentials = None
    if parts.username:
        credentials = (unquote(parts.username), unquote(parts.password or ""))
    return _checked(Host(scheme, parts.hostname, own_port, unquote(parts.path).rstrip("/"), credentials), option)


def _from_mapping(given: Mapping[Any, Any], option: str, port: int, tls: bool) -> Host:
    known = {"host", "port", "scheme", "use_ssl", "path_prefix", "url_prefix"}
    if "host" not in given or set(given) - known:
        raise InvalidConfigError(
            f"{option}: a mapping for a host has host and perhaps {', '.join(sorted(known - {'host'}))}, "
            f"not {', '.join(map(str, given)) or 'nothing'}"
        )
    scheme = given.get("scheme") or ("https" if given.get("use_ssl", tls) else "http")
    path = str(given.get("path_prefix") or given.get("url_prefix") or "").strip("/")
    host = Host(scheme, str(given["host"]).strip("[]"), given.get("port", port), f"/{path}" if path else "")
    return _checked(host, option)


def _checked(host: Host, option: str) -> Host:
    if host.scheme not in {"http", "https"}:
        raise InvalidConfigError(f'{option}: scheme {host.scheme!r} is not possible; it is "http" or "https"')
    port: Any = host.port
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise InvalidConfigError(f"{option}: port {host.port!r} is not possible; it is a number from 1 to 65535")
    if not host.name or any(each.isspace() or each in "/@?#\\" for each in host.name):
        raise InvalidConfigError(f"{option}: {host.name!r} is no name of a host")
    return host


def _hidden(text: str) -> str:
    """A URL that cannot be read, without what may be a password."""
    before, at, after = text.rpartition("@")
    return f"{before.partition('://')[0]}://…@{after}" if at else text
