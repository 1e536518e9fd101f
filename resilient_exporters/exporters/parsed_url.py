"""A URL taken apart, and its query made into the options of a constructor."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from resilient_exporters.errors import InvalidConfigError

__all__ = ["ParsedURL", "arguments", "parameters"]


@dataclass(frozen=True, slots=True)
class ParsedURL:
    """The parts of a URL, percent-decoded. Shown without password and query.

    Attributes:
        scheme: in lower case, with a driver ("postgresql+psycopg") if there was one.
        hosts: host and port (or None) of each that the URL names.
        username, password: None where there is none.
        path: with its leading slash.
        query: pairs in their order.
        base: the text up to the query, as it was given.
    """

    scheme: str
    hosts: tuple[tuple[str, int | None], ...]
    username: str | None
    password: str | None
    path: str
    query: tuple[tuple[str, str], ...]
    base: str

    @classmethod
    def parse(cls, url: str) -> ParsedURL:
        """Take a URL apart.

        Raises:
            InvalidConfigError: it is none. The text is not shown whole, since it may hold a password.
        """
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", str(url))
        if scheme is None:
            raise InvalidConfigError(
                None, "url: has no scheme; right would be file:///var/log/x.jsonl or sqlite:///x.db"
            )
        base, _, query = url.partition("?")
        try:
            parts = urlsplit(base)
            names = parts.netloc.rpartition("@")[2].split(",")
            hosts = tuple(_host(each) for each in names if each or len(names) > 1)
        except ValueError as error:
            raise InvalidConfigError(None, f"url ({scheme[1]}:…): {error}") from None
        pairs = parse_qsl(query.partition("#")[0], keep_blank_values=True)
        return cls(
            scheme=scheme[1].lower(),
            hosts=hosts,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password is not None else None,
            path=unquote(parts.path + (f"#{parts.fragment}" if parts.fragment else "")),
            query=tuple(pairs),
            base=base,
        )

    @property
    def host(self) -> str | None:
        """The host, if there is one.

        Raises:
            InvalidConfigError: there are several. Who can do with them asks for ``hosts``.
        """
        return self._place[0]

    @property
    def port(self) -> int | None:
        """Its port, if the URL says it. Raises as ``host``."""
        return self._place[1]

    @property
    def _place(self) -> tuple[str | None, int | None]:
        if len(self.hosts) > 1:
            raise InvalidConfigError(None, f"url {self}: {len(self.hosts)} hosts; right would be one of them")
        return self.hosts[0] if self.hosts else (None, None)

    @property
    def file_path(self) -> str:
        """The path of a local file: ``file:///abs``, ``file:rel``, ``file:///C:/abs``.

        Raises:
            InvalidConfigError: there is none, or a host before it.
        """
        if self.host not in (None, "localhost"):
            raise InvalidConfigError(
                None,
                f"url {self}: {self.host!r} stands where a host does; right would be {self.scheme}:///{self.host}…",
            )
        path = self.path[1:] if re.match(r"/[A-Za-z]:[/\\]", self.path) else self.path
        if path in ("", "/"):
            raise InvalidConfigError(None, f"url {self}: has no path; right would be {self.scheme}:///var/log/x.jsonl")
        return path

    def with_query(self, pairs: Collection[tuple[str, str]]) -> str:
        """The URL with another query."""
        return self.base + (f"?{urlencode(list(pairs), quote_via=quote)}" if pairs else "")

    def __str__(self) -> str:
        return f"{self.scheme}://{','.join(map(_shown, self.hosts))}{self.path}"

    __repr__ = __str__


def _host(text: str) -> tuple[str, int | None]:
    """Name and port. Raises ValueError: a port that is none, no name."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is no host; several have a comma in between, and each its port")
    return unquote(parts.hostname), parts.port


def _shown(place: tuple[str, int | None]) -> str:
    host, port = place
    return (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")


def arguments(
    cls: type,
    parsed: ParsedURL,
    options: Mapping[str, Any],
    *,
    taken: Collection[str] = (),
    passed_on: Collection[str] = (),
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Options of a constructor, from the query of a URL and from keywords, which win.

    Args:
        cls: whose constructor it is; the parameters of its base classes count too.
        parsed: the URL.
        options: keywords.
        taken: parameters that the place in the URL fills already.
        passed_on: query parameters that are another's (a driver's).

    Returns:
        The options, and the query pairs to be passed on.

    Raises:
        InvalidConfigError: a parameter is unknown, twice there, or has a value it cannot have.
    """
    known = {name: kind for name, kind in parameters(cls).items() if name not in taken}
    found: dict[str, Any] = {}
    rest: list[tuple[str, str]] = []
    for name, text in parsed.query:
        if name in passed_on and name not in known:
            rest.append((name, text))
        elif name not in known:
            close = difflib.get_close_matches(name, [*known, *passed_on], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(sorted(known))}"
            raise InvalidConfigError(None, f"url {parsed}: {cls.__name__} has no option {name!r}{hint}")
        elif name in found:
            raise InvalidConfigError(None, f"url {parsed}: option {name!r} is given twice")
        else:
            found[name] = _converted(name, text, known[name], parsed)
    return {**found, **options}, rest


# --- options by signature


def parameters(cls: type) -> dict[str, str]:
    """Names and annotations (as text) of all keywords that a constructor takes, its base classes' included."""
    found: dict[str, str] = {}
    for each in _constructors(cls):
        signature = inspect.signature(each)
        for parameter in list(signature.parameters.values())[1:]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, _annotation(parameter))
        if not any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values()):
            break  # nothing reaches the base classes
    return found


def _constructors(cls: type) -> Iterator[Callable[..., None]]:
    for each in cls.__mro__:
        own = vars(each).get("__init__")
        if inspect.isfunction(own):
            yield own


def _annotation(parameter: inspect.Parameter) -> str:
    given = parameter.annotation
    if given is parameter.empty:
        return "" if parameter.default in (None, parameter.empty) else type(parameter.default).__name__
    if isinstance(given, str):
        return given
    return given.__name__ if isinstance(given, type) else str(given)


_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def _converted(name: str, text: str, annotation: str, parsed: ParsedURL) -> Any:
    kinds = _kinds(annotation)
    lower = text.strip().lower()
    if "None" in kinds and (lower == "" or (lower in ("none", "null") and kinds - {"None"} != {"str"})):
        return None
    if "bool" in kinds and lower in _TRUE | _FALSE and not (lower in "01" and kinds & {"int", "float"}):
        return lower in _TRUE
    for kind, make in (("int", int), ("float", float)):
        if kind in kinds:
            try:
                return make(lower)
            except ValueError:
                continue
    if not kinds or kinds & {"str", "Any", "Path", "object", "PathLike", "Literal"}:
        return text
    if kinds & {"list", "tuple", "Sequence", "Collection", "Iterable"}:
        return [each.strip() for each in text.split(",")]
    if kinds & {"int", "float", "bool", "timedelta"}:
        raise InvalidConfigError(None, f"url {parsed}: {name}={text!r}: must be {annotation}")
    raise InvalidConfigError(None, f"url {parsed}: {name} ({annotation}) cannot be said in a URL; pass it as a keyword")


def _kinds(annotation: str) -> set[str]:
    """The outermost names of an annotation: "int | Sequence[str] | None" gives int, Sequence, None."""
    flat = re.sub(r"\bOptional\[(.*)\]", r"\1|None", annotation)
    flat = re.sub(r"\bUnion\[(.*)\]", lambda found: found[1].replace(",", "|"), flat)
    while (bare := re.sub(r"\[[^\[\]]*\]", "", flat)) != flat:
        flat = bare
    return {each.strip().rpartition(".")[2] for each in flat.split("|") if each.strip()}
