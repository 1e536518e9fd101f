from __future__ import annotations

import base64
import json
import math
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters
from resilient_exporters import (
    Batch,
    Delivered,
    ElasticsearchExporter,
    Hold,
    InvalidConfigError,
    MissingConfigError,
    Record,
    Reject,
    Retry,
    Split,
    from_url,
)
from resilient_exporters.exporters import elasticsearch_client
from resilient_exporters.exporters.elasticsearch_client import Answer

RUN = "0123456789abcdef"
CLOUD = "site:" + base64.b64encode(b"es.example:9243$abc$def").decode()


def batch(*data: Any, redelivered: bool = False, **options: Any) -> Batch:
    """Records with these data; ``options`` are for all of them."""
    return Batch([Record(RUN, n, one, options) for n, one in enumerate(data)], redelivered=redelivered)


def exporter(**options: Any) -> ElasticsearchExporter:
    return ElasticsearchExporter(**{"target_ip": "es", "default_index": "readings", **options})


def outcomes_of(one: ElasticsearchExporter, given: Batch) -> list[Any]:
    found = one.export(given)
    assert isinstance(found, list)
    return found


def lines(one: ElasticsearchExporter, given: Batch) -> list[Any]:
    return [json.loads(line) for line in one._actions.request(given).body.splitlines()]


def answering(one: ElasticsearchExporter, *answers: Answer | BaseException) -> list[tuple[str, Any]]:
    """Let the cluster answer like this, one after the other. Returns the list of what it will have been asked."""
    left = list(answers)
    asked: list[tuple[str, Any]] = []

    def answer(what: str, content: Any) -> Answer:
        asked.append((what, content))
        given = left.pop(0)
        if isinstance(given, BaseException):
            raise given
        return given

    one._cluster.bulk = lambda target, body, timeout: answer(target, body)  # type: ignore[method-assign] # answers without a server
    one._cluster.sources = lambda wanted, timeout: answer("sources", wanted)  # type: ignore[method-assign] # as above
    return asked


def item(status: int, kind: str | None = None, text: str = "", index: str = "readings", name: str = "1") -> dict:
    error = {} if kind is None else {"error": {"type": kind, "reason": text}}
    return {"create": {"_index": index, "_id": name, "status": status, **error}}


def items(*given: dict) -> Answer:
    return Answer(200, {}, {"errors": any("error" in one["create"] for one in given), "items": list(given)})


# Where it is


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"target_ip": "127.0.0.1"}, "http://127.0.0.1:9200"),
        ({"target_ip": "es", "target_port": 9201, "use_ssl": True}, "https://es:9201"),
        ({"target_ip": "es:9300"}, "http://es:9300"),
        ({"target_ip": "::1"}, "http://[::1]:9200"),
        ({"target_ip": "[::1]:9300"}, "http://[::1]:9300"),
        ({"target_ip": "https://es.example"}, "https://es.example:443"),
        ({"target_ip": "https://es.example", "target_port": 9243}, "https://es.example:9243"),
        ({"target_ip": "http://es.example/es/"}, "http://es.example:9200/es"),
        ({"target_ip": "a", "cluster_hosts": ["b", "c"]}, "http://a:9200"),
        ({"cluster_hosts": ["b", "a:9300"]}, "http://a:9300,http://b:9200"),
        ({"hosts": "http://user:p%40ss@a:1"}, "http://a:1"),
        ({"hosts": [{"host": "a", "port": 1, "scheme": "https", "path_prefix": "x"}]}, "https://a:1/x"),
        ({"hosts": [{"host": "a", "use_ssl": True}]}, "https://a:9200"),
        ({"cloud_id": CLOUD}, "cloud:site"),
        ({"target_ip": "es", "default_index": "x-{t:%Y}"}, "http://es:9200/x-{t:%Y}"),
    ],
)
def test_address(options: dict[str, Any], address: str) -> None:
    assert ElasticsearchExporter(**options).address() == address


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "target_ip, hosts, cluster_hosts or cloud_id"),
        ({"target_ip": ""}, "target_ip="),
        ({"target_ip": 7}, "target_ip=7"),
        ({"hosts": []}, "hosts=\\[\\]"),
        ({"target_ip": "es", "target_port": 0}, "target_port=0"),
        ({"target_ip": "es", "target_port": 70000}, "port 70000"),
        ({"target_ip": "es:http"}, "target_ip"),
        ({"target_ip": "ftp://es"}, "target_ip"),
        ({"hosts": [{"port": 1}]}, "hosts"),
        ({"hosts": [{"host": "a", "timeout": 1}]}, "timeout"),
        ({"hosts": "a", "cluster_hosts": "b"}, "two names"),
        ({"target_ip": "a", "cloud_id": CLOUD}, "two places"),
        ({"cloud_id": ""}, "cloud_id"),
        ({"target_ip": "es", "password": "x"}, "no username"),
        ({"target_ip": "es", "username": "u", "password": "p", "api_key": "k"}, "api_key and username"),
        ({"hosts": ["http://a:1@x", "http://b:1@y"]}, "different credentials"),
        ({"target_ip": "es", "api_key": ("a", "b", "c")}, "api_key"),
        ({"target_ip": "es", "use_ssl": "yes"}, "use_ssl='yes'"),
        ({"target_ip": "es", "ssl_ca_certs": "ca.pem"}, "use_ssl=True"),
        ({"target_ip": "es", "default_index": "Readings"}, "default_index='Readings'"),
        ({"target_ip": "es", "default_index": "x-{t:%Q}"}, "default_index"),
        ({"target_ip": "es", "op_type": "update"}, "op_type"),
        ({"target_ip": "es", "on_duplicate": "merge"}, "on_duplicate"),
        ({"target_ip": "es", "id": "field"}, "id="),
        ({"target_ip": "es", "refresh": "now"}, "refresh"),
        ({"target_ip": "es", "max_content_length": "much"}, "max_content_length"),
        ({"target_ip": "es", "client_options": {"no_such": 1}}, "no_such"),
        ({"target_ip": "es", "client_options": {"timeout": 1}}, "timeout"),
        ({"target_ip": "es", "sniff_on_strat": True}, "sniff_on_strat"),
    ],
)
def test_a_wrong_option_is_told_at_once(options: dict, words: str) -> None:
    with pytest.raises(InvalidConfigError, match=words) as raised:
        ElasticsearchExporter(**options)
    assert isinstance(raised.value, ValueError)


def test_the_original_spelling_is_the_same_class() -> None:
    assert resilient_exporters.ElasticSearchExporter is ElasticsearchExporter


def test_no_secret_is_shown() -> None:
    # Given credentials in every place that has room for them
    by_option = exporter(username="user", password="s3cret:@/%")
    by_url = ElasticsearchExporter("https://user:s3cret@es")
    by_key = exporter(api_key="s3cret")

    # Then none of the ways to look at an exporter shows them
    for one in (by_option, by_url, by_key):
        assert "s3cret" not in repr(one) + one.address() + one.name + repr(one._hosts)
    with pytest.raises(InvalidConfigError) as raised:
        ElasticsearchExporter("ftp://user:s3cret@es")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({"username": "user", "password": "p:@/%"}, "Basic " + base64.b64encode(b"user:p:@/%").decode()),
        ({"target_ip": "https://us%40er:p%3Aw@es"}, "Basic " + base64.b64encode(b"us@er:p:w").decode()),
        ({"api_key": "a2V5"}, "ApiKey a2V5"),
        ({"api_key": ("id", "key")}, "ApiKey " + base64.b64encode(b"id:key").decode()),
        ({}, None),
    ],
)
def test_credentials_reach_every_request(options: dict, header: str | None) -> None:
    client = ElasticsearchExporter(**{"target_ip": "es", **options}).client
    assert [node.config.headers.get("authorization") for node in client.transport.node_pool.all()] == [header]


def test_the_client_does_not_try_again_by_itself() -> None:
    client = exporter().client
    assert (client._max_retries, client._retry_on_timeout) == (0, False)


def test_urls() -> None:
    one = from_url("es://user:p%40ss@es:9300/prefix/readings-%7Bt:%25Y%7D?http_compress=true&op_type=index")
    assert isinstance(one, ElasticsearchExporter)
    assert one.address() == "http://es:9300/prefix/readings-{t:%Y}"
    assert one._cluster._compress
    assert from_url("elasticsearch+https://es/x").address() == "https://es:9200/x"
    assert from_url("elasticsearch://es", default_index="y").address() == "http://es:9200/y"
    both = from_url("elasticsearch+https://u:p@a:9201,b/prefix/x")
    assert both.address() == "https://a:9201/prefix,https://b:9200/prefix/x"
    for wrong in ("es+tcp://es", "es://a,/x", "es://es/x?no_such=1", "es://es/BAD", "es:"):
        with pytest.raises(InvalidConfigError):
            from_url(wrong)


def test_constructing_needs_no_file_and_no_cloud() -> None:
    # Given a certificate that is not there (yet), and an id that is none, as in the original's document
    files = ElasticsearchExporter("es", use_ssl=True, ssl_certfile="/path/to/file", sniff_on_start=True)
    cloud = ElasticsearchExporter(cloud_id="cloud id", api_key="api key", default_index="my_index")

    # When they are to deliver, then the records are held, and the reason says what to mend
    with pytest.raises(resilient_exporters.HoldError, match=r"ssl_certfile='/path/to/file': the file is not there"):
        files.connect()
    with pytest.raises(resilient_exporters.HoldError, match="cloud_id='cloud id' is none"):
        cloud.connect()


def test_a_certificate_without_a_key_is_one_to_trust(tmp_path: Path) -> None:
    # Given a PEM file without and one with a private key
    trusted, own = tmp_path / "ca.pem", tmp_path / "own.pem"
    trusted.write_text("-----BEGIN CERTIFICATE-----")
    own.write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----")

    def options(**given: Any) -> dict:
        found = exporter(use_ssl=True, **given)._cluster._security.options()
        return {name: value for name, value in found.items() if name.startswith(("c", "v"))}

    # Then each is used for what it can be used for
    assert options(ssl_certfile=str(trusted)) == {"verify_certs": True, "ca_certs": str(trusted)}
    assert options(ssl_certfile=str(own)) == {"verify_certs": True, "client_cert": str(own), "client_key": str(own)}
    assert options(ssl_certfile=str(trusted), ssl_keyfile=str(own)) == {
        "verify_certs": True, "client_cert": str(trusted), "client_key": str(own),
    }  # fmt: skip
    assert options(ssl_certfile=str(own), ssl_ca_certs=str(trusted))["ca_certs"] == str(trusted)
    assert options(verify_certs=False) == {"verify_certs": False}


# What is sent


def test_a_batch_is_created_under_the_ids_of_its_records() -> None:
    assert lines(exporter(), batch({"n": 1}, {"n": 2})) == [
        {"create": {"_id": f"{RUN}-0"}}, {"n": 1}, {"create": {"_id": f"{RUN}-1"}}, {"n": 2},
    ]  # fmt: skip
    assert exporter()._actions.target.startswith("/readings/_bulk?filter_path=")


@pytest.mark.parametrize(
    ("exporters", "data", "options", "meta"),
    [
        ({}, {"a": 1}, {"index": "other"}, {"create": {"_index": "other", "_id": f"{RUN}-0"}}),
        ({}, {"a": 1}, {"index": "o-{a}"}, {"create": {"_index": "o-1", "_id": f"{RUN}-0"}}),
        ({}, {"a": 1}, {"id": 7}, {"create": {"_id": "7"}}),
        ({}, {"a": 1, "_id": "x"}, {}, {"create": {"_id": "x"}}),
        ({}, {"a": 1, "_id": "x"}, {"id": "y"}, {"create": {"_id": "y"}}),
        ({}, {"a": 1, "_id": None}, {}, {"create": {"_id": f"{RUN}-0"}}),
        ({}, {"a": 1}, {"op_type": "index"}, {"index": {"_id": f"{RUN}-0"}}),
        ({}, {"a": 1}, {"routing": 5}, {"create": {"_id": f"{RUN}-0", "routing": "5"}}),
        ({}, {"a": 1}, {"pipeline": "p"}, {"create": {"_id": f"{RUN}-0", "pipeline": "p"}}),
        ({"op_type": "index"}, {"a": 1}, {}, {"index": {"_id": f"{RUN}-0"}}),
        ({"id": "server"}, {"a": 1}, {}, {"create": {}}),
        ({"id": lambda data: data["a"]}, {"a": 1}, {}, {"create": {"_id": "1"}}),
        ({"id": lambda data: None}, {"a": 1}, {}, {"create": {"_id": f"{RUN}-0"}}),
        ({"on_duplicate": "replace"}, {"a": 1}, {"id": "y"}, {"index": {"_id": "y"}}),
        ({"on_duplicate": "replace"}, {"a": 1}, {}, {"create": {"_id": f"{RUN}-0"}}),
        ({"default_index": "d-{a}"}, {"a": 1}, {}, {"create": {"_index": "d-1", "_id": f"{RUN}-0"}}),
    ],
)  # fmt: skip
def test_actions(exporters: dict, data: dict, options: dict, meta: dict) -> None:
    assert lines(exporter(**exporters), batch(data, **options)) == [meta, {"a": 1}]


def test_the_path_has_what_is_the_same_for_all() -> None:
    assert exporter(default_index="größe")._actions.target.startswith("/gr%C3%B6%C3%9Fe/_bulk?")
    target = exporter(default_index="d-{a}", pipeline="a b", refresh="wait_for")._actions.target
    assert target.startswith("/_bulk?")
    assert "pipeline=a+b" in target
    assert target.endswith("refresh=wait_for")


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("text", {}, "mapping, not a str"),
        (b"bytes", {}, "mapping, not a bytes"),
        ((1, 2), {}, "mapping, not a tuple"),
        ({"a": 1}, {"index": "BAD"}, "lower case"),
        ({"a": 1}, {"index": "x-{b}"}, "no field 'b'"),
        ({"a": 1}, {"index": 7}, "index=7"),
        ({"a": 1}, {"index": ["x"]}, "index"),
        ({"a": 1}, {"op_type": "delete"}, "op_type='delete'"),
        ({"a": 1}, {"id": ""}, "1 to 512"),
        ({"a": 1}, {"id": "x" * 513}, "513 bytes"),
        ({"a": 1, "_id": {"$oid": "x"}}, {}, "_id is a dict"),
        ({"a": 1, "_id": "\ud800"}, {}, "surrogate"),
    ],
)
def test_what_cannot_be_a_document_is_refused_and_stops_no_other(data: Any, options: dict, words: str) -> None:
    # Given such a record, and one that is fine
    one = exporter()
    bad = Record(RUN, 0, data, options)
    asked = answering(one, items(item(201)))

    # When both are in one batch
    outcomes = one.export(Batch([bad, Record(RUN, 1, {"n": 1}, {})]))

    # Then the first is refused with the reason, and only the second is sent
    assert isinstance(outcomes, list)
    assert isinstance(outcomes[0], Reject)
    assert words in outcomes[0].reason
    assert isinstance(outcomes[1], Delivered)
    assert asked[0][1].count(b"\n") == 2
    assert one.export(Batch([bad])) == [outcomes[0]]


def test_a_function_for_ids_that_fails_refuses_the_record() -> None:
    outcomes = exporter(id=lambda data: data["device"]).export(batch({"n": 1}))
    assert outcomes == [Reject("the function for id raised KeyError: 'device'")]


def test_values_are_exact_or_documented() -> None:
    given = {
        "int": 2**70, "float": 0.1, "nan": math.nan, "inf": -math.inf, "decimal": Decimal("1.50"), "bytes": b"\x00\xff",
        "time": datetime(2024, 3, 9, 1, 2, 3, 456789),
        "aware": datetime(2024, 3, 9, tzinfo=timezone(timedelta(hours=2))),
        "half": "\ud800", "nul": "a\x00b", 5: {"set": {1}}, "emoji": "😀", "line": "a\nb\u2028",
    }  # fmt: skip
    assert lines(exporter(), batch(given))[1] == {
        "int": 2**70, "float": 0.1, "nan": None, "inf": None, "decimal": "1.50", "bytes": "AP8=",
        "time": "2024-03-09T01:02:03.456789", "aware": "2024-03-09T00:00:00+02:00",
        "half": "\ud800", "nul": "a\x00b", "5": {"set": [1]}, "emoji": "😀", "line": "a\nb\u2028",
    }  # fmt: skip


def test_too_large_is_known_before_it_is_sent() -> None:
    one = exporter(max_content_length=100)
    asked = answering(one)
    assert isinstance(one.export(batch({"text": "x" * 100})), Split)
    assert not asked


# What comes back


def test_a_record_gets_its_item_back() -> None:
    one = exporter()
    answering(one, items(item(201, name="a"), item(201, name="b")))
    outcomes = one.export(batch({}, {}))
    assert isinstance(outcomes, list)
    assert [outcome.returned["_id"] for outcome in outcomes] == ["a", "b"]


def test_every_item_has_an_outcome_of_its_own() -> None:
    one = exporter()
    refusal = item(400, "document_parsing_exception", "failed to parse field [n]")
    answering(one, items(item(201), refusal, item(429, "es_rejected_execution_exception"), item(500, "exception", "?")))
    outcomes = one.export(batch({}, {}, {}, {}))
    assert isinstance(outcomes, list)
    assert isinstance(outcomes[0], Delivered)
    assert outcomes[1] == Reject("400 document_parsing_exception: failed to parse field [n]")
    assert isinstance(outcomes[2], Retry)
    assert isinstance(outcomes[3], resilient_exporters.ExportError)


def test_our_own_id_that_is_taken_means_that_it_is_there() -> None:
    one = exporter()
    answering(one, items(item(409, "version_conflict_engine_exception")))
    outcomes = one.export(batch({"n": 1}))
    assert outcomes == [Delivered({"_index": "readings", "_id": "1", "result": "noop", "status": 200})]


@pytest.mark.parametrize(
    ("on_duplicate", "redelivered", "stored", "outcome"),
    [
        ("reject", False, None, Reject),
        ("ignore", False, None, Delivered),
        ("reject", True, {"n": 1, "t": "2024-03-09T00:00:00"}, Delivered),  # an attempt of ours whose answer got lost
        ("reject", True, {"n": 2}, Reject),
        ("reject", True, None, Reject),  # gone again, or _source is switched off
    ],
)
def test_an_id_of_the_users_that_is_taken(on_duplicate: Any, redelivered: bool, stored: Any, outcome: type) -> None:
    # Given an exporter whose record has an id that a document has already
    one = exporter(on_duplicate=on_duplicate)
    found = {"docs": [{"_index": "readings", "_id": "x", **({} if stored is None else {"_source": stored})}]}
    asked = answering(one, items(item(409, "version_conflict_engine_exception", name="x")), Answer(200, {}, found))

    # When it is sent
    given = batch({"n": 1, "t": datetime(2024, 3, 9)}, id="x", routing="r", redelivered=redelivered)
    outcomes = one.export(given)

    # Then it counts as delivered only if the program says so, or if the document is this very record
    assert isinstance(outcomes, list)
    assert isinstance(outcomes[0], outcome)
    assert asked[1:] == ([("sources", [("readings", "x", "r")])] if redelivered else [])


def test_a_look_that_fails_settles_nothing() -> None:
    import elastic_transport

    one = exporter()
    conflict = items(item(201), item(409, "version_conflict_engine_exception"))
    for answer in (elastic_transport.ConnectionError("gone"), Answer(503, {}, None)):
        answering(one, conflict, answer)
        outcomes = one.export(batch({"n": 1}, {"n": 1, "_id": "x"}, redelivered=True))
        assert isinstance(outcomes, list)
        assert [type(each) for each in outcomes] == [Delivered, Retry]


def test_one_record_that_names_a_bad_index_holds_no_other() -> None:
    # Given a batch in which one record names an index that is not there
    one = exporter()
    given = Batch([Record(RUN, 0, {}, {}), Record(RUN, 1, {}, {"index": "typo"})])
    missing = item(404, "index_not_found_exception", "no such index [typo]")
    answering(one, items(item(201), missing), items(missing, missing), items(item(201), missing))

    # Then it is refused with the reason, if the others were taken
    outcomes = one.export(given)
    assert isinstance(outcomes, list)
    assert isinstance(outcomes[1], Reject)
    assert "no such index [typo]" in outcomes[1].reason
    # And held, if none was: then it may be the account or the cluster
    assert [type(each) for each in outcomes_of(one, given)] == [Hold, Hold]
    # And held, if the index is the exporter's
    assert [type(each) for each in outcomes_of(one, batch({}, {}))] == [Delivered, Hold]


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (Answer(429, {"retry-after": "7"}, {"error": {"type": "x", "reason": "slower"}}), Retry, "slower"),
        (Answer(503, {}, "<h1>Service Unavailable</h1>"), Retry, "503: Service Unavailable"),
        (Answer(413, {}, "too large"), Split, "413"),
        (Answer(401, {}, {"error": {"type": "security_exception", "reason": "who?"}}), Hold, "check username"),
        (Answer(404, {}, "not here"), Hold, "check host, port and path"),
        (
            Answer(400, {}, {"error": {"type": "media_type_header_exception", "reason": "x"}}),
            Hold,
            "is too new for this",
        ),
        (Answer(200, {}, "<html>Please log in</html>"), Retry, "not how Elasticsearch answers"),
        (Answer(200, {}, {"items": []}), Retry, "not how Elasticsearch answers"),
        (Answer(400, {}, {"error": {"type": "x_content_parse_exception", "reason": "x"}}), Reject, "x_content"),
    ],
)
def test_an_answer_for_the_whole_request(answer: Answer, outcome: Any, words: str) -> None:
    one = exporter()
    answering(one, answer)
    found: Any = one.export(batch({}, {}))
    assert isinstance(found, outcome)
    assert words in found.reason
    assert "http://es:9200/readings" in found.reason
    if answer.status == 429:
        assert found.after == 7.0


def test_an_answer_that_says_nothing_is_unclear() -> None:
    one = exporter()
    answering(one, Answer(500, {}, {"error": {"type": "exception", "reason": "?"}}))
    with pytest.raises(resilient_exporters.ExportError, match="500 exception"):
        one.export(batch({}))


# send


def test_no_index_is_told_to_the_caller() -> None:
    one = ElasticsearchExporter("127.0.0.1", 9)
    with pytest.raises(MissingConfigError, match="no index"):
        one.send({"n": 1})
    assert one.send({"n": 1}, index="x").id
    with pytest.raises(InvalidConfigError, match="no option collection"):
        one.send({"n": 1}, collection="x")
    one.close(0)


def test_the_fast_way_of_send_is_taken_where_there_is_nothing_to_look_at() -> None:
    one = exporter(target_ip="127.0.0.1", target_port=9)
    one.send({"n": 1})
    assert not one._slow
    one.close(0)


@pytest.mark.parametrize(
    ("options", "concurrency"),
    [({}, "auto"), ({"op_type": "index"}, 1), ({"on_duplicate": "replace"}, 1),
     ({"op_type": "index", "id": "server"}, "auto"), ({"op_type": "index", "concurrency": 4}, 4)],
)  # fmt: skip
def test_concurrency_is_one_where_a_later_record_may_replace_an_earlier_one(options: dict, concurrency: Any) -> None:
    assert exporter(**options)._concurrency == concurrency


# On the wire, from something that is no Elasticsearch


class Stub:
    """An HTTP server that says what it is told to say, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: tuple[int, dict[str, str], bytes] = (200, {"content-type": "application/json"}, b"{}")
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                stub.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status, headers, content = stub.answer
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST  # noqa: N815 - as the base class calls it

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.close()


@pytest.fixture
def towards(stub: Stub) -> Iterator[Callable[..., ElasticsearchExporter]]:
    made: list[ElasticsearchExporter] = []

    def make(**options: Any) -> ElasticsearchExporter:
        made.append(ElasticsearchExporter("127.0.0.1", stub.port, default_index="x", **options))
        made[-1].connect()
        return made[-1]

    yield make
    for one in made:
        one.disconnect()


GOOD = b'{"errors":false,"items":[{"create":{"_id":"a","status":201}}]}'


def test_one_request_a_batch_and_nothing_else(stub: Stub, towards: Any) -> None:
    # Given a server that does not say that it is Elasticsearch (a proxy may hide it), and counts requests
    stub.answer = (200, {"content-type": "application/json"}, GOOD)
    one = towards(username="u", password="p")

    # When a batch is delivered, then that is one POST to the bulk API, as the package's client would send it
    assert one.export(batch({"n": 1})) == [Delivered({"_id": "a", "status": 201})]
    [(path, headers, body)] = stub.asked
    assert path.startswith("/x/_bulk?filter_path=errors,items.*._index,")
    assert headers["authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
    assert headers["content-type"].startswith("application/vnd.elasticsearch+x-ndjson; compatible-with=")
    assert body == b'{"create":{"_id":"%s-0"}}\n{"n":1}\n' % RUN.encode()


def test_compression(stub: Stub, towards: Any) -> None:
    import gzip

    stub.answer = (200, {"content-type": "application/json", "content-encoding": "gzip"}, gzip.compress(GOOD))
    assert towards(http_compress=True).export(batch({"n": 1})) == [Delivered({"_id": "a", "status": 201})]
    [(_, headers, body)] = stub.asked
    assert headers["content-encoding"] == headers["accept-encoding"] == "gzip"
    assert gzip.decompress(body).endswith(b'{"n":1}\n')


@pytest.mark.parametrize(
    "kind", ["application/json", "text/html", "application/xml", "application/octet-stream", "x/y", None]
)
@pytest.mark.parametrize(("status", "outcome"), [(429, Retry), (413, Split), (401, Hold), (502, Retry), (200, Retry)])
def test_what_a_proxy_says_is_understood_by_its_status(
    stub: Stub, towards: Any, kind: str | None, status: int, outcome: type
) -> None:
    stub.answer = (status, {} if kind is None else {"content-type": kind}, b"<html>\xff</html>")
    found = towards().export(batch({"n": 1}))
    assert isinstance(found, outcome) or (kind == "x/y" and isinstance(found, Retry))


def test_sniffing_that_fails_is_not_fatal(stub: Stub, towards: Any) -> None:
    # Given a server that has no list of its nodes
    stub.answer = (200, {"content-type": "application/json"}, GOOD)

    # When an exporter asks for it, then it goes on with what it was given
    one = towards(sniff_on_start=True)
    assert stub.asked[0][0].startswith("/_nodes/_all/http?")
    assert one.export(batch({"n": 1})) == [Delivered({"_id": "a", "status": 201})]


def test_sniffed_nodes_that_are_out_of_reach_are_given_up(stub: Stub, towards: Any) -> None:
    # Given a server whose list has a node that nobody can reach
    nodes = {"nodes": {"a": {"http": {"publish_address": "127.0.0.1:9"}, "roles": ["data"]}}}
    stub.answer = (200, {"content-type": "application/json"}, json.dumps(nodes).encode())
    one = towards(sniff_on_start=True)
    stub.answer = (200, {"content-type": "application/json"}, GOOD)

    # When the engine delivers, connecting anew after what failed
    found = one.export(batch({"n": 1}))
    if isinstance(found, list):  # the nodes take turns
        found = one.export(batch({"n": 1}))
    assert isinstance(found, Retry)
    one.disconnect()
    one.connect()

    # Then it goes to the host that it was given
    for _ in range(4):
        assert isinstance(one.export(batch({"n": 1})), list)


def test_a_host_that_is_down_is_passed_over(stub: Stub) -> None:
    stub.answer = (200, {"content-type": "application/json"}, GOOD)
    one = ElasticsearchExporter(hosts=["127.0.0.1:9", f"127.0.0.1:{stub.port}"], default_index="x")
    for _ in range(4):
        one.connect()
        assert isinstance(one.export(batch({"n": 1})), list)
        one.disconnect()


def test_nobody_there_is_an_outage(towards: Any) -> None:
    one = ElasticsearchExporter("127.0.0.1", 9, default_index="x")
    one.connect()
    found = one.export(batch({"n": 1}))
    one.disconnect()
    assert isinstance(found, Retry)
    assert "http://127.0.0.1:9/x: ConnectionError" in found.reason


def test_an_answer_that_is_no_json_is_a_text() -> None:
    """What a proxy in between says, in whatever encoding."""
    json_ = elasticsearch_client._Json()
    assert json_.loads(b'{"took": 1}') == {"took": 1}
    assert json_.loads(b"<html>gateway</html>") == "<html>gateway</html>"
    assert json_.loads(b'{"error": "\xfcberlastet"}') == '{"error": "\ufffdberlastet"}'
