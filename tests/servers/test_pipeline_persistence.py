"""The state of jobs in real PostgreSQL and MariaDB databases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import tenacity

from resilient_exporters.pipeline import BasicExporter, Pipeline, StateError, checkpoint
from resilient_exporters.pipeline.checkpoint import Checkpoint, Store
from resilient_exporters.pipeline.persistence import BasePersistence, MysqlPersistence, PostgresqlPersistence
from resilient_exporters.pipeline.retries import retrying
from resilient_exporters.policy import RetryPolicy
from tests.pipelines import Bomb, LinesWriter, Numbers, Seen, written
from tests.servers.provision import HOST, Instance, Link


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> Any:
    """The SQLAlchemy URL of an empty database."""
    return sqlalchemy.make_url(request.getfixturevalue(f"{request.param}_database"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHORT", RetryPolicy(tenacity.wait_fixed(0.05), stop=200))


def options(url: sqlalchemy.URL, port: int | None = None) -> dict[str, Any]:
    return {"user": url.username, "host": url.host, "port": port or url.port, "database": url.database}


def persistence(url: sqlalchemy.URL, port: int | None = None) -> BasePersistence:
    cls = PostgresqlPersistence if url.drivername.startswith("postgresql") else MysqlPersistence
    return cls(**options(url, port))


def test_a_run_is_resumed_by_its_uri(url: sqlalchemy.URL, tmp_path: Path) -> None:
    # Given a run from a configuration as the old documents have it
    name = "PostgresqlPersistence" if url.drivername.startswith("postgresql") else "MysqlPersistence"
    one = BasicExporter(
        {
            "reader": {"name": "tests.pipelines.Numbers", "options": {}},
            "filter": {"name": "tests.pipelines.Seen"},
            "writer": {"name": "tests.pipelines.LinesWriter", "options": {"path": str(tmp_path / "o.jl")}},
            "persistence": {"name": f"exporters.persistence.alchemy_persistence.{name}", "options": options(url)},
            "exporter_options": {"on_bad_record": "dead"},
        }
    )
    assert isinstance(one.writer, LinesWriter)
    one.writer.bombs = {"write": Bomb(55)}
    with pytest.raises(OSError, match="disk full"):
        one.run()
    assert one.uri.startswith(f"{url.drivername.partition('+')[0]}://{url.username}@{HOST}:{url.port}/{url.database}/")

    # When it is resumed by what it said
    done = BasicExporter.from_persistence_configuration(one.uri).run()

    # Then all is there once, and the job is done
    assert written(tmp_path / "o.jl") == list(range(100))
    store = Store(persistence(url).url())
    assert [(job.id, job.finished) for job in store.jobs()] == [(done.job, True)]
    assert (store.states(done.job), list(store.journal(done.job, "filter_before"))) == ({}, [])
    store.close()


def test_what_is_kept_comes_back(url: sqlalchemy.URL) -> None:
    store = Store(persistence(url).url())
    job = store.create({"writer": {"name": "é%?'"}})
    position = {"key": b"\x00\xff" * 500, "big": 2**70, "text": "é%s?'"}
    store.commit(job, Checkpoint(position=position, states={"writer": [1] * 100_000}, journals={"filter": ["a", "b"]}))
    store.commit(job, Checkpoint(position=position, journals={"filter": ["c"]}, figures={"reader": {"read_items": 3}}))
    store.close()

    again = Store(persistence(url).url())
    kept = again.load(job)
    assert (kept.position, kept.figures) == (position, {"reader": {"read_items": 3}})
    assert kept.configuration == {"writer": {"name": "é%?'"}}
    assert again.states(job) == {"writer": [1] * 100_000}
    assert list(again.journal(job, "filter")) == [["a", "b"], ["c"]]
    again.delete(job)
    assert again.jobs() == []
    again.close()


def test_a_server_that_goes_away_is_waited_for(
    url: sqlalchemy.URL, link: Callable[[int], Link], tmp_path: Path
) -> None:
    # Given a run whose connection to its state breaks, and does not come back at once
    assert url.port is not None
    line = link(url.port)

    class Breaking(LinesWriter):
        def write_record(self, record: Any) -> None:
            super().write_record(record)
            if record["n"] == 35:
                line.cut()
                waits.append(record["n"])

    waits: list[int] = []

    def mend(*args: Any, **kwargs: Any) -> Any:
        def sleep(seconds: float) -> None:
            waits.append(-1)
            line.mend()

        return retrying(*args, **kwargs, sleep=sleep)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint, "retrying", mend)
        one = Pipeline(
            Numbers(), Seen(), writer=Breaking(path=str(tmp_path / "o.jl")), persistence=persistence(url, line.port)
        )
        report = one.run()

    # Then the commit waited, and each record is there once
    assert waits[:2] == [35, -1]
    assert report.complete
    assert written(tmp_path / "o.jl") == list(range(100))


def test_a_commit_whose_answer_was_lost_is_not_done_twice(url: sqlalchemy.URL) -> None:
    # Given a commit that the server took, and a connection that broke before it said so
    store = Store(persistence(url).url())
    job = store.create({})
    store.commit(job, Checkpoint(position=1, journals={"filter": [1]}))
    connection = store._database._connection
    inner = getattr(connection, "driver_connection", connection)

    class Deaf:
        def cursor(self) -> Any:
            return inner.cursor()

        def commit(self) -> None:
            inner.commit()
            inner.close()
            inner.cursor().execute("SELECT 1")

        def rollback(self) -> None:
            inner.rollback()

        def close(self) -> None:
            connection.close()

    store._database._connection = Deaf()
    store.commit(job, Checkpoint(position=2, journals={"filter": [2]}))

    # Then the second attempt sees that it was done
    assert store.load(job).position == 2
    assert list(store.journal(job, "filter")) == [[1], [2]]
    store.commit(job, Checkpoint(position=3, journals={"filter": [3]}))
    assert list(store.journal(job, "filter")) == [[1], [2], [3]]
    store.close()


def test_a_process_on_another_machine_takes_over(url: sqlalchemy.URL, tmp_path: Path) -> None:
    # Given a run that fails to see that somebody else goes on with its job
    class Overtaken(LinesWriter):
        def write_record(self, record: Any) -> None:
            super().write_record(record)
            if record["n"] == 30:
                other = persistence(url)
                other.claim(one.persistence.job)
                other.close()

    one = Pipeline(Numbers(), writer=Overtaken(path=str(tmp_path / "o.jl")), persistence=persistence(url))

    # Then its next commit is refused
    with pytest.raises(StateError, match="taken over by another process"):
        one.run()


def test_a_server_that_is_not_there_is_named_without_the_password(url: sqlalchemy.URL, postgresql: Instance) -> None:
    cls = type(persistence(url))
    with pytest.raises(StateError) as caught:
        _ = cls(host=HOST, port=1, user="me", password="sesame-street", database="d").store
    assert "sesame" not in str(caught.value)
    assert "cannot be used" in str(caught.value)
