"""The exporter for Elasticsearch 8 and 9."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from resilient_exporters import errors
from resilient_exporters.delivery.outcome import Batch, Delivered, Hold, Outcome, Reject, Retry, Split
from resilient_exporters.exporter import Exporter
from resilient_exporters.exporters.elasticsearch_actions import Action, Actions
from resilient_exporters.exporters.elasticsearch_errors import judge_answer, judge_item, reason, retry_after
from resilient_exporters.exporters.elasticsearch_hosts import Host, parse_hosts
from resilient_exporters.exporters.index_pattern import IndexPattern
from resilient_exporters.exporters.lines import json_line
from resilient_exporters.exporters.parsed_url import arguments
from resilient_exporters.units import parse_choice, parse_count, parse_size

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from resilient_exporters.delivery.stats import CloseReport
    from resilient_exporters.exporters.elasticsearch_client import Answer, Cluster
    from resilient_exporters.exporters.parsed_url import ParsedURL

__all__ = ["ElasticSearchExporter", "ElasticsearchExporter"]


class ElasticsearchExporter(Exporter):
    """Documents in Elasticsearch, one bulk request a batch.

    A record is a mapping. It is created under its record id, so that one that is sent twice (after a time-out, a crash,
    a restart) makes one document. What the server refuses becomes a dead letter with the server's reason, and the
    others of its batch are written. docs/exporters/elasticsearch.md has the tables of values and of errors.

    Args:
        target_ip: host name, address or URL of one node or proxy. It wins over ``cluster_hosts``.
        target_port: TCP port where the host says none.
        username, password: for Basic authentication.
        cluster_hosts: several hosts: names, names with ports, URLs, or mappings with host and port. A host that cannot
            be reached is passed over for the next.
        cloud_id: of a deployment in Elastic Cloud; its traffic is compressed unless ``http_compress`` says otherwise.
        api_key: encoded as the server gives it out, or a tuple of id and key.
        sniff_on_start: ask for the other nodes when connecting; where that fails, the hosts that were given will do.
            Not with ``cloud_id``, where it has no meaning.
        default_index: index, alias or data stream for records that name none: a name, or a pattern of fields of the
            record (``readings-{@timestamp:%Y.%m.%d}``, see ``IndexPattern``).
        use_ssl: https for hosts that are no URLs.
        ssl_certfile: PEM file. With a private key in it, or with ``ssl_keyfile``, it is our own certificate; without
            one, it is to be trusted as those of ``ssl_ca_certs``.
        ssl_ca_certs: PEM file of certificates to trust. Default: those of the certifi package.
        hosts: the client's name of ``cluster_hosts``.
        ssl_keyfile: PEM file of the key for ``ssl_certfile``.
        verify_certs: False trusts any host.
        op_type: "create", or "index", which replaces a document with the same id. Data streams take "create" only.
        id: "record" (the record's id), "server" (the server makes one: a record that is sent again is there twice), or
            a function of the record's data that returns one, or None for the record's id. A record with a field
            ``_id`` has that id, and the field is left out of the document.
        on_duplicate: what becomes of a record whose own id (not ours) is taken: "reject" makes a dead letter, "ignore"
            counts it as delivered, "replace" replaces the document.
        pipeline: ingest pipeline.
        refresh: True makes documents searchable at once, "wait_for" waits until they are. Both cost the server dear.
        http_compress: gzip requests and answers: for slow or paid links. None: with ``cloud_id`` only.
        max_content_length: bytes of a request, or a text such as "10 MB"; 100 MB is the server's own default.
        client_options: further keywords for ``elasticsearch.Elasticsearch``, such as ``ssl_assert_fingerprint``.
        **options: those of `Exporter`. ``concurrency`` is "auto", and 1 where a later record may replace an
            earlier one.

    Record options (``send(data, **options)``): ``index`` (also a pattern), ``id``, ``op_type``, ``routing`` and
    ``pipeline``.

    A receipt's ``returned`` is the item of the bulk answer: a dict with _index, _id, result and status.

    Raises:
        MissingModuleError: the elasticsearch package is not installed.
        InvalidConfigError: no host, or an option has a value it cannot have.
    """

    kind: ClassVar[str] = "elasticsearch"
    concurrency: ClassVar[int | str] = "auto"
    record_options: ClassVar[frozenset[str] | None] = frozenset({"index", "id", "op_type", "routing", "pipeline"})

    def __init__(
        self,
        target_ip: str | None = None,
        target_port: int = 9200,
        username: str | None = None,
        password: str | None = None,
        cluster_hosts: str | Sequence[str | Mapping[str, Any]] | None = None,
        cloud_id: str | None = None,
        api_key: str | tuple[str, str] | None = None,
        sniff_on_start: bool = False,
        default_index: str | None = None,
        use_ssl: bool = False,
        ssl_certfile: str | None = None,
        ssl_ca_certs: str | None = None,
        *,
        hosts: str | Sequence[str | Mapping[str, Any]] | None = None,
        ssl_keyfile: str | None = None,
        verify_certs: bool = True,
        op_type: Literal["create", "index"] = "create",
        id: Literal["record", "server"] | Callable[[Any], Any] = "record",  # noqa: A002 - as the record option
        on_duplicate: Literal["reject", "ignore", "replace"] = "reject",
        pipeline: str | None = None,
        refresh: bool | Literal["wait_for"] | None = None,
        http_compress: bool | None = None,
        max_content_length: int | str = "100 MB",
        client_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._hosts = _hosts(
            target_ip, cluster_hosts, hosts, cloud_id,
            port=parse_count(target_port, "target_port"), tls=_flag(use_ssl, "use_ssl"),
        )  # fmt: skip
        self._cloud = cloud_id if not self._hosts else None
        self._index = None if default_index is None else IndexPattern(default_index)
        self._on_duplicate = parse_choice(on_duplicate, "on_duplicate", ("reject", "ignore", "replace"))
        self._most = parse_size(max_content_length, "max_content_length")
        self._actions = Actions(
            index=self._index,
            op_type=parse_choice(op_type, "op_type", ("create", "index")),
            id=id if callable(id) else parse_choice(id, "id", ("record", "server")),  # type: ignore[arg-type] # a callable is told apart at run time
            replace=on_duplicate == "replace",
            pipeline=pipeline,
            refresh=_refresh(refresh),
        )
        self._cluster = self._made(
            _credentials(username, password, api_key, self._hosts), api_key,
            files=(ssl_ca_certs, ssl_certfile, ssl_keyfile), verify=_flag(verify_certs, "verify_certs"),
            sniff=_flag(sniff_on_start, "sniff_on_start") and self._cloud is None,
            compress=self._cloud is not None if http_compress is None else _flag(http_compress, "http_compress"),
            extra=client_options or {},
        )  # fmt: skip
        if options.get("concurrency") is None and (op_type == "index" or on_duplicate == "replace") and id != "server":
            options["concurrency"] = 1
        super().__init__(**options)
        self.checks = self._index is None  # the fast way of `send`, unless it has something to look at

    @classmethod
    def from_url(cls, parsed: ParsedURL, options: dict[str, Any]) -> ElasticsearchExporter:
        """Make one from ``elasticsearch://user:password@host:9200/prefix/index?http_compress=true``.

        The last part of the path is ``default_index``, what is before it the prefix of all paths. Several hosts have
        commas in between.
        ``elasticsearch+https://`` is TLS.
        """
        if parsed.scheme.partition("+")[2] not in {"", "http", "https"}:
            raise errors.InvalidConfigError(
                None, f"url {parsed}: right would be elasticsearch:// or elasticsearch+https://"
            )
        prefix, _, index = parsed.path.strip("/").rpartition("/")
        given: dict[str, Any] = {"username": parsed.username, "password": parsed.password, "default_index": index}
        given = {name: value for name, value in given.items() if value and name not in options}
        if parsed.hosts and not {"hosts", "cluster_hosts", "target_ip", "cloud_id"} & options.keys():
            scheme = "https" if parsed.scheme.endswith("+https") else "http"
            given["hosts"] = [
                {"host": host, "port": port or 9200, "scheme": scheme, "path_prefix": prefix}
                for host, port in parsed.hosts
            ]
        found, _ = arguments(cls, parsed, options, taken=set(given))
        return cls(**given, **found)

    @property
    def client(self) -> Elasticsearch:
        """A client of the elasticsearch package for the same cluster, for searches and the like. Cannot be set."""
        return self._cluster.client

    def address(self) -> str:
        """The hosts, without credentials, and the default index."""
        index = "" if self._index is None else f"/{self._index.text}"
        if self._cloud is not None:
            return f"cloud:{self._cloud.partition(':')[0]}{index}"
        return ",".join(sorted(host.url for host in self._hosts)) + index

    def check(self, data: Any, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - the signature of the hook
        """Tell the caller that no index is said anywhere."""
        if self._index is None and options.get("index") is None:
            raise errors.MissingConfigError(self, "no index: give default_index, or send(data, index=…)")

    def connect(self) -> None:
        """Make a client. A server is asked only for ``sniff_on_start``.

        Raises:
            HoldError: a certificate file is missing, or ``cloud_id`` is none.
        """
        self._cluster.connect()

    def disconnect(self) -> None:
        """Close the connections of deliveries."""
        self._cluster.close()

    def close(self, timeout: float = 5.0) -> CloseReport:
        """As every exporter; ``client`` is closed too."""
        try:
            return super().close(timeout)
        finally:
            self._cluster.close_client()

    def export(self, batch: Batch) -> Outcome | Sequence[Outcome | None] | None:
        """Write a batch with one bulk request. Errors are told by the tables in docs/exporters/elasticsearch.md."""
        request = self._actions.request(batch)
        if len(request.body) > self._most:
            return Split(f"{len(request.body)} bytes of JSON are more than max_content_length={self._most}")
        if not request.places:
            return [Reject(request.refused[place]) for place in range(len(batch))]
        answer = self._asked(lambda: self._cluster.bulk(self._actions.target, request.body, _left(batch)))
        if isinstance(answer, Retry | Hold):
            return answer
        items = answer.body.get("items") if isinstance(answer.body, dict) else None
        if not 200 <= answer.status < 300 or not isinstance(items, list) or len(items) != len(request.places):
            return self._told(answer, len(request.body))
        found = [next(iter(item.values())) for item in items]
        if answer.body.get("errors") is False and not request.refused:
            return [Delivered(item) for item in found]
        outcomes: list[Any] = [Reject(request.refused[n]) if n in request.refused else None for n in range(len(batch))]
        self._judge(batch, dict(zip(request.places, found, strict=True)), outcomes)
        return outcomes

    def _judge(self, batch: Batch, items: Mapping[int, dict[str, Any]], outcomes: list[Any]) -> None:
        """Fill in the outcomes of the records that were sent."""
        doubted: list[int] = []
        held: list[int] = []
        for place, item in items.items():
            error, status = item.get("error"), int(item.get("status", 0))
            if error is None and 200 <= status < 300:
                outcomes[place] = Delivered(item)
                continue
            verdict, advice = judge_item(status, error)
            said = reason(status, error)
            if verdict == "duplicate":
                if self._actions.action(batch[place]).own or self._on_duplicate == "ignore":
                    outcomes[place] = _there(item)
                else:
                    outcomes[place] = Reject(said)
                    doubted.append(place)
            elif verdict == "hold":
                outcomes[place] = Hold(f"{said}; {advice}")
                held.append(place)
            elif verdict == "unclear":
                outcomes[place] = errors.ExportError(None, said)
            else:
                outcomes[place] = {"retry": Retry(None, said), "split": Split(said), "reject": Reject(said)}[verdict]
        if doubted and batch.redelivered:
            self._look(batch, items, doubted, outcomes)
        if held and any(isinstance(each, Delivered) for each in outcomes):
            # The cluster is well. An index, pipeline or op_type that this record alone asks for stops no others.
            for place in held:
                if self._actions.action(batch[place]).named:
                    outcomes[place] = Reject(outcomes[place].reason)

    def _look(
        self, batch: Batch, items: Mapping[int, dict[str, Any]], doubted: Sequence[int], outcomes: list[Any]
    ) -> None:
        """Tell a user's id that is taken by our own earlier attempt from one that is taken by another document."""
        actions: dict[int, Action] = {place: self._actions.action(batch[place]) for place in doubted}
        wanted = [
            (str(items[place].get("_index")), str(items[place].get("_id")), actions[place].routing) for place in doubted
        ]
        answer = self._asked(lambda: self._cluster.sources(wanted, _left(batch)))
        if isinstance(answer, Retry | Hold) or answer.status != 200:
            for place in doubted:  # the others are settled, these are tried again
                outcomes[place] = Retry(None, f"cannot look whether it is there: {outcomes[place].reason}")
            return
        for place, found in zip(doubted, answer.body["docs"], strict=True):
            if _same(found.get("_source"), actions[place].document):
                outcomes[place] = _there(items[place])

    def _asked(self, ask: Callable[[], Answer]) -> Answer | Retry | Hold:
        try:
            return ask()
        except Exception as error:
            transport = importlib.import_module("elastic_transport")
            if not isinstance(error, transport.TransportError):
                raise
            said = f"{self.address()}: {type(error).__name__}: {error.message}"
            if isinstance(error, transport.TlsError) and "CERTIFICATE" in said.upper():
                return Hold(f"{said}; check ssl_ca_certs, ssl_certfile and the host's name")
            return Retry(None, said)

    def _told(self, answer: Answer, size: int) -> Outcome:
        verdict, advice = judge_answer(answer.status, answer.body, size)
        said = f"{self.address()}: {reason(answer.status, answer.body)}"
        if advice == "media":
            advice = _media()
        if advice:
            said = f"{said}; {advice}"
        if verdict == "retry":
            return Retry(retry_after(answer.headers), said)
        if verdict in {"split", "reject", "hold"}:
            made: dict[str, type[Split | Reject | Hold]] = {"split": Split, "reject": Reject, "hold": Hold}
            return made[verdict](said)
        raise errors.ExportError(None, said)

    def _made(
        self, credentials: tuple[str, str] | None, api_key: str | tuple[str, str] | None, *,
        files: tuple[str | None, str | None, str | None], verify: bool, **options: Any,
    ) -> Cluster:  # fmt: skip
        try:
            from resilient_exporters.exporters import elasticsearch_client as package
        except ModuleNotFoundError as error:
            raise errors.MissingModuleError(
                None, f"{type(self).__name__} needs {error.name}: pip install 'resilient-exporters[elasticsearch]'"
            ) from error
        if not 8 <= package.MAJOR < 10:
            raise errors.InvalidConfigError(f"elasticsearch {package.VERSION} is installed; right would be 8 or 9")
        secure = self._cloud is not None or any(host.scheme == "https" for host in self._hosts)
        if not secure and any(files):
            raise errors.InvalidConfigError(
                "ssl_certfile, ssl_keyfile or ssl_ca_certs is given, and no host has https: give use_ssl=True"
            )
        security = package.Security(package.Security.header(credentials, api_key), *files, verify=verify)
        cloud = self._cloud
        hosts = self._hosts
        return package.Cluster(lambda: hosts if cloud is None else (package.cloud_host(cloud),), security, **options)


ElasticSearchExporter = ElasticsearchExporter
"""The original's spelling."""


def _hosts(target_ip: Any, cluster: Any, hosts: Any, cloud_id: Any, *, port: int, tls: bool) -> tuple[Host, ...]:
    """The hosts of the first option that has some; none with ``cloud_id``."""
    given = {"target_ip": target_ip, "hosts": hosts, "cluster_hosts": cluster, "cloud_id": cloud_id}
    option = next((name for name, value in given.items() if value is not None), None)
    if option is None:
        raise errors.InvalidConfigError("where is the cluster? Give target_ip, hosts, cluster_hosts or cloud_id")
    if cluster is not None and hosts is not None:
        raise errors.InvalidConfigError("hosts and cluster_hosts are two names of one option: give one")
    if cloud_id is not None and option != "cloud_id":
        raise errors.InvalidConfigError(f"{option} and cloud_id are two places: give one")
    if option != "cloud_id":
        return parse_hosts(given[option], option, port=port, tls=tls)
    if not isinstance(cloud_id, str) or not cloud_id.strip():
        raise errors.InvalidConfigError(f"cloud_id={cloud_id!r} is not possible; copy it from the deployment")
    return ()


def _credentials(
    username: str | None, password: str | None, api_key: Any, hosts: Sequence[Host]
) -> tuple[str, str] | None:
    """User and password, from options or from a URL."""
    found = {host.credentials for host in hosts if host.credentials is not None}
    if username is not None:
        found = {(username, password or "")}
    elif password is not None and api_key is None:
        raise errors.InvalidConfigError("password is given, and no username")
    if len(found) > 1:
        raise errors.InvalidConfigError("the hosts have different credentials: give username and password")
    if api_key is not None and found:
        raise errors.InvalidConfigError("api_key and username are two ways to say who you are: give one")
    if api_key is not None and not isinstance(api_key, str) and len(tuple(api_key)) != 2:
        raise errors.InvalidConfigError("api_key: give the encoded key, or a tuple of id and key")
    return next(iter(found), None)


def _flag(value: Any, option: str) -> bool:
    if not isinstance(value, bool):
        raise errors.InvalidConfigError(f"{option}={value!r} is no bool: give True or False")
    return value


def _refresh(value: Any) -> str | None:
    if value not in (None, True, False, "wait_for"):
        raise errors.InvalidConfigError(f'refresh={value!r} is not possible; give True, False or "wait_for"')
    return None if value is None else str(value).lower()


def _left(batch: Batch) -> float | None:
    """Seconds for a request: a little less than the attempt has, so that what went wrong is told from inside."""
    left = batch.deadline - time.monotonic()
    return None if left == float("inf") else max(0.05, left - min(0.5, left / 10))


def _there(item: Mapping[str, Any]) -> Delivered:
    return Delivered({"_index": item.get("_index"), "_id": item.get("_id"), "result": "noop", "status": 200})


def _same(stored: Any, sent: Mapping[Any, Any]) -> bool:
    return isinstance(stored, dict) and stored == importlib.import_module("json").loads(json_line(sent))


def _media() -> str:
    from resilient_exporters.exporters.elasticsearch_client import MAJOR, VERSION

    older = f"'elasticsearch>={MAJOR - 1},<{MAJOR}'" if MAJOR > 8 else "a server of version 8 or 9"
    return (
        f"the installed elasticsearch package ({VERSION}) is too new for this server, which does not understand "
        f'"compatible-with={MAJOR}": install {older}{", or update the server" if MAJOR > 8 else ""}'
    )
