"""Fixtures of real servers. Each is started once per run, if a test asks for it, and stopped at the end.

A test that crashes or configures a server asks `own_server` for one of its own. What cannot be had is skipped, and
pytest's summary says what and why.
"""

from __future__ import annotations

import shutil
import tempfile
import urllib.request
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.servers.destinations.destination import Destination
from tests.servers.matrix import Row, table
from tests.servers.provision import HOST, SERVERS, Cache, Instance, Link, UnavailableError
from tests.servers.provision.elasticsearch import python_client_9

Thing = TypeVar("Thing")
MISSING = " CANNOT BE HAD: "


class Servers:
    """The servers of one run.

    Args:
        root: folder for their data, which other users can pass through: PostgreSQL does not run as root.
    """

    def __init__(self, root: Path) -> None:
        self.cache = Cache()
        self._root = root
        self._shared: dict[str, Instance | UnavailableError] = {}

    def shared(self, name: str, **options: Any) -> Instance:
        """The one of this name that all tests use, running."""
        if name not in self._shared:
            try:
                self._shared[name] = self.new(name, **options)
            except UnavailableError as error:
                self._shared[name] = error
        found = self._shared[name]
        if isinstance(found, UnavailableError):
            raise found
        return found

    def new(self, name: str, **options: Any) -> Instance:
        """One more of this name, running; options as those of `Instance`."""
        server = SERVERS[name]
        server.install(self.cache)
        instance = Instance(server, Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._root)), self.cache, **options)
        instance.data.chmod(0o711)
        try:
            return instance.start()
        except BaseException:
            instance.remove()
            raise

    def close(self) -> None:
        for instance in reversed(self._shared.values()):
            if isinstance(instance, Instance):
                instance.stop()


def or_skip(name: str, start: Callable[[], Thing]) -> Thing:
    """What `start` gives; where that cannot be had, the test is skipped."""
    try:
        return start()
    except UnavailableError as error:
        pytest.skip(f"{name}{MISSING}{str(error).splitlines()[0]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the summary have one line for each missing server with the number of its tests, not one for each test."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and MISSING in report.longrepr[2]:
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report


_MATRIX = pytest.StashKey[list["Row"]]()


@pytest.fixture
def matrix(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Keep a cell of the fault matrix for the table at the end of the run, and for later."""
    rows = request.config.stash.setdefault(_MATRIX, [])

    def keep(row: Row) -> None:
        rows.append(row)
        row.keep()

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Draw the table."""
    if rows := terminalreporter.config.stash.get(_MATRIX, []):
        terminalreporter.section("fault matrix")
        terminalreporter.write_line(table(rows))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    root = Path(tempfile.mkdtemp(prefix="servers-"))
    root.chmod(0o711)
    servers = Servers(root)
    try:
        yield servers
    finally:
        servers.close()
        shutil.rmtree(root)


@pytest.fixture
def own_server(servers: Servers) -> Iterator[Callable[..., Instance]]:
    """Start a server for this test alone: ``own_server("nginx", upstream=port, settings={"rate": "5r/s"})``."""
    started: list[Instance] = []

    def start(name: str, **options: Any) -> Instance:
        started.append(or_skip(name, lambda: servers.new(name, **options)))
        return started[-1]

    yield start
    for instance in reversed(started):
        instance.remove()


@pytest.fixture(scope="module")
def at(servers: Servers) -> Iterator[Callable[[type[Destination]], Destination]]:
    """A destination of each kind for this module, on servers of its own: ``at(MongoDB)``."""
    made: dict[type[Destination], Destination] = {}

    def get(kind: type[Destination]) -> Destination:
        if kind not in made:
            made[kind] = kind(lambda name, **options: or_skip(name, lambda: servers.new(name, **options)))
        return made[kind]

    yield get
    for one in made.values():
        one.close()


# Links


@pytest.fixture
def toxiproxy(servers: Servers) -> Instance:
    return or_skip("toxiproxy", lambda: servers.shared("toxiproxy"))


@pytest.fixture
def link(toxiproxy: Instance) -> Iterator[Callable[[int], Link]]:
    """Make a link to a port that can go bad: ``bad = link(postgresql.port)``, then ``bad.port``, ``bad.cut()``."""
    made: list[Link] = []

    def make(upstream: int) -> Link:
        made.append(Link(toxiproxy, upstream))
        return made[-1]

    yield make
    for one in made:
        one.close()


# Elasticsearch


@pytest.fixture
def elasticsearch8(servers: Servers) -> Instance:
    return or_skip("elasticsearch8", lambda: servers.shared("elasticsearch8"))


@pytest.fixture
def elasticsearch9(servers: Servers) -> Instance:
    return or_skip("elasticsearch9", lambda: servers.shared("elasticsearch9"))


@pytest.fixture(params=["elasticsearch8", "elasticsearch9"])
def elasticsearch(request: pytest.FixtureRequest, servers: Servers) -> Instance:
    """Both, one after the other."""
    name: str = request.param
    return or_skip(name, lambda: servers.shared(name))


@pytest.fixture
def index(elasticsearch: Instance) -> Iterator[str]:
    """The name of an index of this test, gone afterwards. It is not there until something is written."""
    name = unique("index")
    yield name
    url = f"{elasticsearch.url}/{name}?ignore_unavailable=true"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()


@pytest.fixture(scope="session")
def elasticsearch_client_9(servers: Servers) -> Path:
    """A folder for PYTHONPATH with version 9 of the Python client; the one that is installed here is 8."""
    return or_skip("elasticsearch's client 9", lambda: python_client_9(servers.cache))


# MongoDB


@pytest.fixture
def ferretdb(servers: Servers) -> Instance:
    return or_skip("ferretdb", lambda: servers.shared("ferretdb"))


@pytest.fixture
def mongo_java(servers: Servers) -> Instance:
    return or_skip("mongo-java", lambda: servers.shared("mongo-java"))


@pytest.fixture
def failcommand(servers: Servers, ferretdb: Instance) -> Iterator[Instance]:
    """The proxy in front of ferretdb, without a fail point at the start of each test."""
    import pymongo

    instance = or_skip("failcommand", lambda: servers.shared("failcommand", upstream=ferretdb.port))
    yield instance
    with pymongo.MongoClient[dict[str, Any]](HOST, instance.port) as client:
        client.admin.command("configureFailPoint", "failCommand", mode="off")


@pytest.fixture
def mongo_database(ferretdb: Instance) -> Iterator[str]:
    """The name of a database of this test in ferretdb, which failcommand shows too; gone afterwards."""
    import pymongo

    name = unique("db")
    yield name
    with pymongo.MongoClient[dict[str, Any]](HOST, ferretdb.port) as client:
        client.drop_database(name)


# Brokers


@pytest.fixture
def kafka(servers: Servers) -> Instance:
    return or_skip("kafka", lambda: servers.shared("kafka"))


@pytest.fixture
def mosquitto(servers: Servers) -> Instance:
    return or_skip("mosquitto", lambda: servers.shared("mosquitto"))


# stores


@pytest.fixture
def azurite(servers: Servers) -> Instance:
    return or_skip("azurite", lambda: servers.shared("azurite"))


@pytest.fixture
def gcs(servers: Servers) -> Instance:
    return or_skip("gcs", lambda: servers.shared("gcs"))


@pytest.fixture
def openssh(servers: Servers) -> Instance:
    return or_skip("openssh", lambda: servers.shared("openssh"))


# SQL


@pytest.fixture
def postgresql(servers: Servers) -> Instance:
    return or_skip("postgresql", lambda: servers.shared("postgresql"))


@pytest.fixture
def mariadb(servers: Servers) -> Instance:
    return or_skip("mariadb", lambda: servers.shared("mariadb"))


@pytest.fixture
def postgresql_database(postgresql: Instance) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database of this test."""
    import psycopg

    name = unique("db")
    with psycopg.connect(host=HOST, port=postgresql.port, user="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    yield f"postgresql+psycopg://postgres@{HOST}:{postgresql.port}/{name}"
    with psycopg.connect(host=HOST, port=postgresql.port, user="postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture
def mariadb_database(mariadb: Instance) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database of this test."""
    import pymysql

    name = unique("db")
    with pymysql.connect(host=HOST, port=mariadb.port, user="root") as connection:
        connection.cursor().execute(f"CREATE DATABASE {name}")
    yield f"mysql+pymysql://root@{HOST}:{mariadb.port}/{name}"
    with pymysql.connect(host=HOST, port=mariadb.port, user="root") as connection:
        connection.cursor().execute(f"DROP DATABASE {name}")


def unique(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:12]}"
