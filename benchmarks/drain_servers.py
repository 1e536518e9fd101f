"""How fast does a backlog drain into real servers, beside the raw client in a tight loop?"""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Figures, column
from benchmarks.material import cpu_seconds, readings
from resilient_exporters import ConnectionError as Unreachable
from resilient_exporters import Exporter, from_url
from tests.servers.provision import HOST, SERVERS, Cache, Instance, UnavailableError
from tests.servers.provision.elasticsearch import Elasticsearch

BATCH = 500
PLACE = "drained"
TARGETS = {
    "mongodb": ("ferretdb", "insert_many", ""),
    "elasticsearch": ("elasticsearch8", "streaming_bulk", ""),
    "postgresql": ("postgresql", "COPY", "after a restart"),
    "mariadb": ("mariadb", "executemany", "after a restart"),
}
"""Server, what the raw client calls, and in which case more is to be done than writing."""


def run(bench: Bench) -> None:
    count = bench.size(500_000, 2_000)
    failed: list[str] = []
    for target, (server, call, dear) in TARGETS.items():
        try:
            with running(server) as port:
                given: dict[str, Any] = {"target": target, "port": port, "count": count}
                cases: dict[str, tuple[Callable[..., Figures], dict[str, Any]]] = {
                    f"{target} ours": (drain, {**given, "restart": False}),
                    f"{target} raw": (raw, given),
                    **({f"{target} {dear}": (drain, {**given, "restart": True})} if dear else {}),
                }
                found = bench.measure(cases, repeats=3)
        except UnavailableError as error:
            bench.note(f"{server} cannot be had: {str(error).splitlines()[0]}")
            continue
        except RuntimeError:  # one that fails does not hide the others
            traceback.print_exc()
            failed.append(server)
            continue
        ours, theirs = found[f"{target} ours"], found[f"{target} raw"]
        beside = (call, column(theirs, "rate"))
        bench.row(f"{target}: records", column(ours, "rate"), "/s", beside=beside, least=0.9, of="ratio")
        bench.row(f"{target}: CPU of the client", column(ours, "cpu"), "s/M", beside=(call, column(theirs, "cpu")))
        if dear:
            bench.row(f"{target}: records, {dear}", column(found[f"{target} {dear}"], "rate"), "/s", beside=beside)
    bench.note(f"a backlog of {count} readings, most of it on disk; batches of {BATCH}, ids and options by default")
    bench.note("the raw client: the same readings from memory, with ids, in the same batches, one after the other")
    bench.note("the server has the same two cores: what the client does not use, it does")
    if failed:
        raise RuntimeError(f"not measured: {', '.join(failed)}")


@contextmanager
def running(server: str) -> Iterator[int]:
    """A server, and its port."""
    cache, recipe = Cache(), copy.copy(SERVERS[server])
    if isinstance(recipe, Elasticsearch):
        recipe.heap = 1024  # the tests' 384 MB are too few for half a million readings at full speed
    recipe.install(cache)
    root = Path(tempfile.mkdtemp(prefix="servers-"))
    root.chmod(0o711)  # PostgreSQL does not run as root
    instance = Instance(recipe, root / server, cache)
    try:
        instance.data.mkdir(mode=0o711)
        yield instance.start().port
    finally:
        instance.stop()
        shutil.rmtree(root, ignore_errors=True)


# In a process of their own:


def drain(
    directory: str, target: str, port: int, count: int, restart: bool, concurrency: int | str = "auto"
) -> Figures:
    """Fill a queue while the server is away, and time from its return until it has all."""
    material = readings()
    prepare, finish, url, _ = AT[target]
    prepare(port, PLACE)
    options: dict[str, Any] = {"directory": directory, "on_full": "block", "max_disk": "2 GB", "retry": 3600.0}
    options["concurrency"] = concurrency
    exporter = shut(from_url(url.format(port=port, place=PLACE), **options))
    send = exporter.send
    for at in range(count):
        send(material[at % len(material)])
    if not exporter.save(60):
        raise RuntimeError("not saved")
    if restart:
        exporter.close(0.0)
        exporter = shut(from_url(url.format(port=port, place=PLACE), **options))
    used, began = cpu_seconds(), time.perf_counter()
    del exporter.connect  # the class has it still
    report = exporter.flush(600)
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    figures = exporter.stats().targets
    exporter.close()
    if not report.complete or finish(port, PLACE) != count:
        raise RuntimeError(f"{finish(port, PLACE)} of {count} are there: {figures}")
    return {"rate": count / seconds, "cpu": used / count * 1e6}


def raw(target: str, port: int, count: int) -> Figures:
    """The same without us."""
    material = readings()
    prepare, finish, _, write = AT[target]
    prepare(port, PLACE)
    used, began = cpu_seconds(), time.perf_counter()
    write(port, PLACE, records_of(material, count))
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    if finish(port, PLACE) != count:
        raise RuntimeError(f"{finish(port, PLACE)} of {count} are there")
    return {"rate": count / seconds, "cpu": used / count * 1e6}


Rows = Iterator[tuple[str, dict[str, Any]]]


def records_of(material: list[dict[str, Any]], count: int) -> Rows:
    """An id as ours are, and a reading."""
    for at in range(count):
        yield f"0123456789abcdef-{at}", material[at % len(material)]


def shut(exporter: Exporter) -> Exporter:
    """The server is away for it, until its own ``connect`` is given back."""

    def connect() -> None:
        raise Unreachable(exporter, "away")

    exporter.connect = connect  # type: ignore[method-assign] # as no subclass of the four would do it
    return exporter


def _batches(rows: Rows) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    while batch := [row for _, row in zip(range(BATCH), rows, strict=False)]:
        yield batch


def _mongo_prepare(port: int, place: str) -> None:
    import pymongo

    with pymongo.MongoClient[Any](HOST, port) as client:
        client.drop_database(place)


def _mongo_finish(port: int, place: str) -> int:
    import pymongo

    with pymongo.MongoClient[Any](HOST, port) as client:
        return int(client[place][place].count_documents({}))


def _mongo_write(port: int, place: str, rows: Rows) -> None:
    import pymongo

    with pymongo.MongoClient[Any](HOST, port) as client:
        collection = client[place][place]
        for batch in _batches(rows):
            collection.insert_many([{"_id": name, **data} for name, data in batch], ordered=False)


def _elastic_prepare(port: int, place: str) -> None:
    from elasticsearch import Elasticsearch

    with Elasticsearch(f"http://{HOST}:{port}") as client:
        client.indices.delete(index=place, ignore_unavailable=True)
        client.indices.create(index=place)


def _elastic_finish(port: int, place: str) -> int:
    from elasticsearch import Elasticsearch

    with Elasticsearch(f"http://{HOST}:{port}") as client:
        client.indices.refresh(index=place)
        return int(client.count(index=place)["count"])


def _elastic_write(port: int, place: str, rows: Rows) -> None:
    from elasticsearch import Elasticsearch
    from elasticsearch.helpers import streaming_bulk

    actions = ({"_op_type": "create", "_index": place, "_id": name, "_source": data} for name, data in rows)
    with Elasticsearch(f"http://{HOST}:{port}", request_timeout=600) as client:  # its 10 s are too few for a slow link
        for _ in streaming_bulk(client, actions, chunk_size=BATCH):
            pass


_FIELDS = (
    "sensor varchar(40)", "ts double precision", "seq bigint", "temperature double precision",
    "humidity double precision", "pressure double precision", "battery double precision", "current double precision",
    "rssi bigint", "ok boolean", "unit varchar(20)", "site varchar(40)",
)  # fmt: skip
_TABLE = f"(_id varchar(64) PRIMARY KEY, {', '.join(_FIELDS)})"
_COLUMNS = ", ".join(field.partition(" ")[0] for field in ("_id", *_FIELDS))


def _postgres(port: int) -> Any:
    import psycopg

    return psycopg.connect(host=HOST, port=port, user="postgres", dbname="postgres")


def _postgres_prepare(port: int, place: str) -> None:
    with _postgres(port) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {place}")
        connection.execute(f"CREATE TABLE {place} {_TABLE}")


def _postgres_finish(port: int, place: str) -> int:
    with _postgres(port) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {place}").fetchone()[0])


def _postgres_write(port: int, place: str, rows: Rows) -> None:
    with _postgres(port) as connection, connection.cursor() as cursor:
        for batch in _batches(rows):
            with cursor.copy(f"COPY {place} ({_COLUMNS}) FROM STDIN") as copy:
                for name, data in batch:
                    copy.write_row((name, *data.values()))
            connection.commit()


def _maria(port: int) -> Any:
    import pymysql

    return pymysql.connect(host=HOST, port=port, user="root")


def _maria_prepare(port: int, place: str) -> None:
    with _maria(port) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {place}")
        cursor.execute(f"CREATE DATABASE {place}")
        cursor.execute(f"USE {place}")
        cursor.execute(f"CREATE TABLE {place} {_TABLE}")


def _maria_finish(port: int, place: str) -> int:
    with _maria(port) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {place}.{place}")
        return int(cursor.fetchone()[0])


def _maria_write(port: int, place: str, rows: Rows) -> None:
    marks = ", ".join(["%s"] * (1 + len(_FIELDS)))
    with _maria(port) as connection, connection.cursor() as cursor:
        for batch in _batches(rows):
            cursor.executemany(
                f"INSERT INTO {place}.{place} ({_COLUMNS}) VALUES ({marks})",
                [(name, *data.values()) for name, data in batch],
            )
            connection.commit()


Server = tuple[Callable[[int, str], None], Callable[[int, str], int], str, Callable[[int, str, Rows], None]]
AT: dict[str, Server] = {
    "mongodb": (_mongo_prepare, _mongo_finish, f"mongodb://{HOST}:{{port}}/{{place}}/{{place}}", _mongo_write),
    "elasticsearch": (_elastic_prepare, _elastic_finish, f"elasticsearch://{HOST}:{{port}}/{{place}}", _elastic_write),
    "postgresql": (
        _postgres_prepare,
        _postgres_finish,
        f"postgresql://postgres@{HOST}:{{port}}/postgres?table={{place}}",
        _postgres_write,
    ),
    "mariadb": (_maria_prepare, _maria_finish, f"mysql://root@{HOST}:{{port}}/{{place}}?table={{place}}", _maria_write),
}
"""Make an empty place, count what is there, our URL of it, write it without us."""
