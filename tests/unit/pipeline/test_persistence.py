"""Where the state of jobs is kept: old names and URIs, damage, and the jobs that are forgotten."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import BasicExporter, ConfigurationError, Pipeline, StateError
from resilient_exporters.pipeline.checkpoint import Checkpoint, Store
from resilient_exporters.pipeline.persistence import (
    BasePersistence,
    MysqlPersistence,
    PicklePersistence,
    PostgresqlPersistence,
    SqlitePersistence,
    persistence_of,
)
from resilient_exporters.testing import RecordingExporter
from tests.pipelines import Bomb, LinesWriter, Numbers, Seen, written


@pytest.mark.parametrize(
    ("uri", "cls", "options", "job"),
    [
        ("sqlite://path.db:JOB", SqlitePersistence, {"database": "path.db"}, "JOB"),
        ("sqlite:///var/lib/a_b-c.db:0f-1", SqlitePersistence, {"database": "/var/lib/a_b-c.db"}, "0f-1"),
        ("pickle://pickle-file.pickle", PicklePersistence, {"file_path": "."}, "pickle-file"),
        ("pickle:some_dir/with.dots/JOB", PicklePersistence, {"file_path": "some_dir/with.dots"}, "JOB"),
        ("pickle:///abs/JOB", PicklePersistence, {"file_path": "/abs"}, "JOB"),
        (
            "postgresql://me:p%40ss@db:5433/base/JOB", PostgresqlPersistence,
            {"user": "me", "password": "p@ss", "host": "db", "port": "5433", "database": "base"}, "JOB",
        ),
        (
            "mysql://me:p@ss:word@db/base/JOB", MysqlPersistence,
            {"user": "me", "password": "p@ss:word", "host": "db", "database": "base"}, "JOB",
        ),
        ("mysql://db/base/JOB", MysqlPersistence, {"host": "db", "database": "base"}, "JOB"),
    ],
)  # fmt: skip
def test_fault_2_the_old_uris_are_read(uri: str, cls: Any, options: dict[str, Any], job: str) -> None:
    assert persistence_of(uri) is cls
    made, found = cls.from_uri(uri)
    assert (made.options, found) == (options, job)


@pytest.mark.parametrize("uri", ["", "JOB", "sqlite://path.db", "mongodb://x/JOB", "postgresql://host/JOB"])
def test_what_is_no_uri_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="is no stored job"):
        persistence_of(uri)


@pytest.mark.parametrize("kind", ["sqlite", "pickle", "default"])
def test_fault_2_a_run_is_resumed_by_its_uri(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a run from a configuration, with a relative path, that failed
    monkeypatch.chdir(tmp_path)
    section = {
        "sqlite": {"persistence": {"name": "SqlitePersistence", "options": {"database": "a.db"}}},
        "pickle": {
            "persistence": {
                "name": "exporters.persistence.pickle_persistence.PicklePersistence",
                "options": {"file_path": "./p_q.r"},
            }
        },
        "default": {},
    }[kind]  # fmt: skip
    one = BasicExporter(
        {
            "reader": {"name": "tests.pipelines.Numbers", "options": {}},
            "writer": {"name": "tests.pipelines.LinesWriter", "options": {"path": str(tmp_path / "o.jl")}},
            **section,
        }
    )
    assert isinstance(one.writer, LinesWriter)
    one.writer.bombs = {"write": Bomb(55)}
    with pytest.raises(OSError, match="disk full"):
        one.run()

    # When it is resumed from elsewhere, by what it said
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    BasicExporter.from_persistence_configuration(one.uri).run()

    # Then all is there once, and there is no pickle
    assert written(tmp_path / "o.jl") == list(range(100))
    assert not list(tmp_path.rglob("*.pickle"))


def test_positions_keep_their_types(tmp_path: Path) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc)
    position = {"when": when, "key": b"\x00\xff", 3: {"big": 2**70}}
    persistence = SqlitePersistence(database=str(tmp_path / "a.db"))
    persistence.generate_new_job({})
    persistence.commit_position(position)
    job = persistence.job
    persistence.close()

    again = SqlitePersistence(database=str(tmp_path / "a.db"))
    again.job = job
    assert again.get_last_position() == position
    again.close()


def test_a_commit_is_all_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.db")
    job = store.create({})
    store.commit(job, Checkpoint(position=1, states={"writer": 1}, journals={"filter": [1]}))

    # When a state cannot be encoded
    with pytest.raises(TypeError):
        store.commit(job, Checkpoint(position=2, states={"filter": 2, "writer": object()}, journals={"filter": [2]}))

    # Then nothing of that commit is there, and the next one goes on
    assert (store.load(job).position, store.states(job)) == (1, {"writer": 1})
    store.commit(job, Checkpoint(position=3, journals={"filter": [3]}))
    assert list(store.journal(job, "filter")) == [[1], [3]]
    store.close()


def test_figures_that_cannot_be_kept_end_no_run() -> None:
    class Noting(RecordingExporter):
        pass

    reader = Numbers()
    reader.set_metadata("odd", object)
    assert Pipeline(reader, writer=Noting()).run().complete


@pytest.mark.parametrize("damage", ["text", "position", "configuration", "newer", "foreign", "directory"])
def test_a_state_that_cannot_be_read_says_so(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    if damage == "text":
        path.write_text("no database, but a text that is long enough to be looked at as one" * 20)
    elif damage == "directory":
        path.mkdir()
    elif damage == "foreign":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE job (id INTEGER, last_position TEXT)")
        connection.close()
    else:
        store = Store(path)
        job = store.create({}, "JOB")
        store.commit(job, Checkpoint(position=1))
        store.close()
        change = {"position": "last_position = x'c1'", "configuration": "configuration = '{'", "newer": "version = 99"}
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE job SET {change[damage]}")
        connection.close()

    persistence = SqlitePersistence(database=str(path))
    with pytest.raises(StateError) as caught:
        Pipeline(Numbers(), writer=RecordingExporter(), persistence=persistence, resume="JOB").run()
    expected = {
        "text": "cannot be used", "directory": "cannot be used", "foreign": "a table job that is not ours",
        "position": "is damaged", "configuration": "is damaged", "newer": "newer version",
    }  # fmt: skip
    assert expected[damage] in str(caught.value)


def test_the_file_is_for_its_owner_only(own_queues: Path) -> None:
    Pipeline([], writer=RecordingExporter()).run()
    path = own_queues / "pipelines" / "jobs.db"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_old_finished_jobs_are_forgotten_but_none_with_records_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resilient_exporters.pipeline import checkpoint
    from resilient_exporters.pipeline.bad_records import BadRecord

    monkeypatch.setattr(checkpoint, "_KEPT", 3)
    store = Store(tmp_path / "a.db")
    for number in range(8):
        job = store.create({}, f"job-{number}")
        if number == 1:
            store.commit(job, Checkpoint(dead=[BadRecord({"n": object}, "odd", "", "reader")]))
        if number != 2:
            store.finish(job)

    store.create({}, "last")

    assert [job.id for job in store.jobs()] == ["job-1", "job-2", "job-5", "job-6", "job-7", "last"]
    assert store.dead("job-1")[0].reason == "odd"
    store.close()


def test_fault_3_sql_persistence_starts_with_the_options_of_the_documents() -> None:
    url = PostgresqlPersistence(user="me", password="s/p", host="h", port=5432, database="d").url()
    assert url == "postgresql+psycopg://me:s%2Fp@h:5432/d"
    assert MysqlPersistence(database="d").url() == "mysql+pymysql://localhost:3306/d"


class Old(BasePersistence):
    """In the style of the old system: a position, and nothing else."""

    kept: dict[str, Any] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.closed = 0

    def generate_new_job(self) -> str:  # type: ignore[override] # as it was: without the configuration
        self.kept.clear()
        return "old-job"

    def get_last_position(self) -> Any:
        return self.kept.get("position")

    def commit_position(self, last_position: Any) -> None:
        self.kept["position"] = last_position

    def close(self) -> None:
        self.closed += 1


def test_a_persistence_that_knows_a_position_only(tmp_path: Path) -> None:
    def make(bombs: dict[str, Bomb], job: str | None = None) -> Pipeline:
        writer = LinesWriter(path=str(tmp_path / "o.jl"), bombs=bombs)
        return Pipeline(Numbers(), Seen(), writer=writer, persistence=Old(), resume=job)

    # Given a run that fails, with a persistence of the old style
    one = make({"write": Bomb(35)})
    with pytest.raises(OSError, match="disk full"):
        one.run()
    assert Old.kept["position"]["last_read"] == 30
    assert Old.kept["position"]["writer_metadata"] == {"items_count": 30}

    # When it is resumed, then all modules have their states, and it is closed once
    two = make({}, "old-job")
    assert two.run().complete
    assert written(tmp_path / "o.jl") == list(range(100))
    assert two.persistence.closed == 1  # type: ignore[attr-defined] # of Old


def test_a_position_that_the_old_system_wrote_is_taken() -> None:
    Old.kept = {"position": {"last_read": 95, "writer_metadata": {"items_count": 95}}}
    exporter = RecordingExporter()
    report = Pipeline(Numbers(), writer=exporter, persistence=Old(), resume="old-job").run()
    assert (report.read, report.figures["writer"]["items_count"]) == (5, 5)
