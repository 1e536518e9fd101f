"""Records, lines and streams that nobody would write, and modules that do what they must not."""

from __future__ import annotations

import csv
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import BadRecordError, ConfigurationError, ItemsLimitReached, Pipeline, PipelineError
from resilient_exporters.pipeline.bad_records import BadRecords
from resilient_exporters.pipeline.deserializers import CSVDeserializer, JsonLinesDeserializer, Unreadable
from resilient_exporters.pipeline.errors import StateError, UnreadableStreamError
from resilient_exporters.pipeline.filters import BaseRecordFilter
from resilient_exporters.pipeline.groupers import BaseRecordGrouper, FileKeyGrouper
from resilient_exporters.pipeline.persistence import SqlitePersistence
from resilient_exporters.pipeline.readers import BaseReader, FSReader, IterableReader
from resilient_exporters.pipeline.retries import Stopped
from resilient_exporters.pipeline.transforms import BaseRecordTransform, BaseTransform
from resilient_exporters.pipeline.workplace import Workplace, workplace_of
from resilient_exporters.pipeline.writers import BaseWriter, ConsoleWriter, FSWriter
from resilient_exporters.testing import RecordingExporter
from tests.pipelines import Bomb, LinesWriter, written

HERE = __name__


def three() -> Iterator[dict[str, int]]:
    yield from ({"n": n} for n in range(3))


def ran(reader: Any, *stages: Any, **options: Any) -> tuple[list[Any], Any]:
    """What a run gave, and its report."""
    taken: list[Any] = []

    class Taking(BaseWriter):
        def write_record(self, record: Any) -> None:
            taken.append(dict(record))

    report = Pipeline(reader, *stages, writer=Taking(), **options).run()
    return taken, report


# -- deserializers -----------------------------------------------------------------------------------------------


def units(deserializer: Any, data: bytes) -> list[Any]:
    return [one for lot in deserializer.lots([data]) for one in lot.found]


def test_an_object_nested_too_deeply_is_a_bad_line_and_no_end_of_the_run() -> None:
    deep = b'{"a":' * 20_000 + b"1" + b"}" * 20_000
    first, bad, last = units(JsonLinesDeserializer(), b'{"n":1}\n' + deep + b'\n{"n":2}\n')
    assert (first, last) == ({"n": 1}, {"n": 2})
    assert isinstance(bad, Unreadable)


def test_all_lines_of_a_row_whose_quote_is_missing_are_put_aside() -> None:
    found = units(CSVDeserializer(), b'a,b\n1,2\n"un,3\n4,5\n6,7\n')
    assert found[0] == {"a": "1", "b": "2"}
    assert [one.data for one in found[1:]] == ['"un,3\n4,5\n6,7\n']


def test_a_long_value_of_a_csv_is_no_bad_row(monkeypatch: pytest.MonkeyPatch) -> None:
    before = csv.field_size_limit(131_072)
    try:
        found = units(CSVDeserializer(), b"a,b\n1," + b"x" * 300_000 + b"\n2,y\n")
    finally:
        csv.field_size_limit(before)
    assert [len(one["b"]) for one in found] == [300_000, 1]


def test_a_header_row_in_another_encoding_makes_an_unreadable_stream() -> None:
    with pytest.raises(UnreadableStreamError, match="it is no utf-16"):
        units(CSVDeserializer(encoding="utf-16"), b"a,b\n1,2\n")


# -- the iterable reader -----------------------------------------------------------------------------------------


def test_a_section_comes_first_as_in_every_other_module() -> None:
    section = {"name": "IterableReader", "options": {"function": f"{HERE}.three", "batch_size": 2}}
    reader = IterableReader(section)
    assert reader.read_option("batch_size") == 2
    assert ran(reader)[0] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_function_is_called_in_code_too() -> None:
    assert ran(IterableReader(function=f"{HERE}.three"))[0] == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("given", [{"n": 1}, {}, "text", b"bytes", 5, None])
def test_what_is_no_iterable_of_records_is_said_at_once(given: Any) -> None:
    with pytest.raises(ConfigurationError):
        Pipeline(given, writer=RecordingExporter())


# -- stages ------------------------------------------------------------------------------------------------------


class Doubling(BaseRecordTransform):
    def transform(self, item: Any) -> Any:
        return {"none": None, "dict": {"n": 5}, "list": [item, item], "text": "no", "number": 5, "lazy": self.lazy()}[
            item["give"]
        ]

    @staticmethod
    def lazy() -> Iterator[Any]:
        yield {"n": 6}
        raise KeyError("late")


def test_whatever_a_transform_returns_is_records_or_a_bad_record() -> None:
    gives = ["none", "dict", "list", "text", "number", "lazy"]
    taken, report = ran([{"give": one} for one in gives], Doubling(), on_bad_record="skip")
    assert taken == [{"n": 5}, {"give": "list"}, {"give": "list"}]
    assert report.bad == {"transform": 3}
    assert report.figures["transform"]["dropped"] == 1


class Limited(BaseRecordFilter, BaseRecordGrouper):
    def filter(self, item: Any) -> bool:
        if item["n"] == 3:
            raise ItemsLimitReached(None, "enough")
        return True


def enough(item: Any) -> bool:
    return Limited.filter(None, item)  # type: ignore[arg-type]  # the same limit as a plain callable


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("stage", [Limited(), enough], ids=["filter", "callable"])
def test_a_limit_that_a_stage_sets_ends_the_run_well(stage: Any, threaded: bool) -> None:
    taken, report = ran(({"n": n} for n in range(10)), stage, threaded=threaded)
    assert (taken, report.complete) == ([{"n": 0}, {"n": 1}, {"n": 2}], True)


def test_whatever_a_group_is_it_is_a_file_within_the_directory_or_a_bad_record(tmp_path: Path) -> None:
    groups = [
        "../../x", "/etc/x", "", ".", "..", "a/b", "é", "x" * 5000, None, 5, 5.0, True, float("nan"), "\ud800", b"by",
        {"a": 1}, [1], "a\nb", "a\0b", "~", "-rf", "x" * 255, (1, 2), Opaque(), 10**400,
    ]  # fmt: skip
    report = Pipeline(
        [{"g": one, "n": number} for number, one in enumerate(groups)],
        FileKeyGrouper(keys=["g"]),
        writer=FSWriter(filebase=str(tmp_path / "out" / "{groups[0]}" / "x"), compression="none"),
        on_bad_record="skip",
    ).run()
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "queues"}
    lines = [line for path in (tmp_path / "out").rglob("x*") for line in path.read_text().splitlines()]
    assert len(lines) == report.written
    assert report.written + sum(report.bad.values()) == len(groups)
    assert report.written >= len(groups) - 3  # a dict, a list, and what nobody knows


def test_a_run_needs_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    assert ran([{"n": 1}])[1].complete


def test_a_console_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(PipelineError, match="no standard output"):
        Pipeline([{"n": 1}], writer=ConsoleWriter()).run()


def test_a_stage_that_is_there_twice_is_refused() -> None:
    one = Doubling()
    with pytest.raises(ConfigurationError, match="twice"):
        Pipeline([], one, one, writer=RecordingExporter())


# -- bad records -------------------------------------------------------------------------------------------------


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise AssertionError("records are never compared: ten thousand of them would take hours")

    __hash__ = None  # type: ignore[assignment]  # as of a list


def test_records_that_are_put_aside_are_not_compared_with_each_other() -> None:
    bad = BadRecords("dead")
    for number in range(4):
        bad.add(Incomparable(), "no", part="reader" if number % 2 else "transform")
    assert [one.part for one in bad.drain(of={"reader"})] == ["reader", "reader"]
    assert [one.part for one in bad.drain()] == ["transform", "transform"]


class Opaque:
    """No codec knows it."""


@pytest.mark.parametrize("choice", ["skip", "fail"])
def test_a_record_that_the_queue_cannot_keep_is_a_bad_one(choice: str) -> None:
    target = RecordingExporter()
    records = [{"n": 0}, {"n": Opaque()}, {"n": "\ud800"}, {"n": 3}]
    one = Pipeline(records, writer=target, on_bad_record=choice)
    if choice == "fail":
        with pytest.raises(BadRecordError, match="writer: a bad record"):
            one.run()
        return
    report = one.run()
    target.flush(10)
    sent = [record["n"] for record in target.records]
    assert 3 in sent and 0 in sent  # noqa: PT018 - what could be kept
    assert report.written == len(sent)
    assert report.written + report.bad["writer"] == len(records)


def test_a_resume_counts_only_what_the_queue_could_keep(tmp_path: Path) -> None:
    # Given a run that fails after the queue took records around one that it could not keep
    target = RecordingExporter(directory=tmp_path / "queue")
    records = [{"n": 0}, {"n": Opaque()}, *({"n": n} for n in range(2, 8))]
    bomb = Bomb(6)

    class GoingOff(BaseTransform):
        def transform_batch(self, batch: Any) -> Iterator[Any]:
            for record in batch:
                bomb()
                yield record

    def made(**options: Any) -> Pipeline:
        return Pipeline(
            IterableReader(records, batch_size=100), GoingOff(), writer=target, on_bad_record="skip",
            persistence=SqlitePersistence(database=str(tmp_path / "jobs.db")), work_dir=tmp_path, **options,
        )  # fmt: skip

    first = made()
    with pytest.raises(OSError, match="disk full"):
        first.run()

    # When it is resumed, then each is there once
    made(resume=first.persistence.job).run()
    target.flush(10)
    assert [record["n"] for record in target.records] == [0, 2, 3, 4, 5, 6, 7]


# -- streams that are not what they were -------------------------------------------------------------------------


def lines(numbers: Any) -> str:
    return "".join(f'{{"n": {n}, "text": "{"x" * 100}"}}\n' for n in numbers)


def interrupted(tmp_path: Path, source: Path) -> Any:
    """A run of 100 lines that failed in its sixth batch; gives what resumes it."""
    (tmp_path / "in").mkdir()
    source.write_text(lines(range(100)))

    def made(bomb: Bomb | None = None, **options: Any) -> Pipeline:
        writer = LinesWriter(path=str(tmp_path / "o.jl"), bombs={"write": bomb or Bomb()})
        return Pipeline(
            FSReader(input=str(source.parent), batch_size=10), writer=writer, work_dir=tmp_path / "work",
            persistence=SqlitePersistence(database=str(tmp_path / "jobs.db")), **options,
        )  # fmt: skip

    first = made(Bomb(55))
    with pytest.raises(OSError, match="disk full"):
        first.run()
    return lambda **options: made(resume=first.persistence.job, **options)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda source: source.write_text(lines(range(40))), "it is not what it was"),
        (lambda source: source.write_text(lines(range(500, 700))), "it is another one now"),
        (lambda source: source.write_text(""), "it is not what it was"),
        (lambda source: source.rename(source.with_name("other.jl")), "it is gone"),
    ],
    ids=["shrunk", "replaced", "emptied", "renamed"],
)
def test_a_resume_tells_that_a_source_is_another_one_and_writes_nothing_twice(
    change: Any, said: str, tmp_path: Path
) -> None:
    source = tmp_path / "in" / "a.jl"
    resumed = interrupted(tmp_path, source)
    change(source)
    with pytest.raises(BadRecordError, match=said):
        resumed().run()

    # And once the file is what it was, each line is written once
    for path in source.parent.iterdir():
        path.unlink()
    source.write_text(lines(range(100)))
    resumed().run()
    assert written(tmp_path / "o.jl") == list(range(100))


def test_a_source_that_grew_is_read_on(tmp_path: Path) -> None:
    source = tmp_path / "in" / "a.jl"
    resumed = interrupted(tmp_path, source)
    with source.open("a") as file:
        file.write(lines(range(100, 120)))
    resumed().run()
    assert written(tmp_path / "o.jl") == list(range(120))


def test_a_file_that_is_named_in_two_ways_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jl"
    path.write_text('{"n": 1}\n')
    names = [str(path), f"{tmp_path}/./a.jl", f"{tmp_path}//a.jl"]
    assert ran(FSReader(input=names))[0] == [{"n": 1}]


# -- the run -----------------------------------------------------------------------------------------------------


def test_a_failure_is_said_even_where_the_reading_thread_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a reader that waits for ever, and a writer that fails
    monkeypatch.setattr("resilient_exporters.pipeline.batches._PATIENCE", 0.2)
    release = threading.Event()

    class Hanging(BaseReader):
        given = False

        def get_next_batch(self) -> list[dict[str, int]]:
            if self.given:
                release.wait(60)
                self.finished = True
                return []
            self.given = True
            return [{"n": 1}]

    class Failing(BaseWriter):
        def write_record(self, record: Any) -> None:
            raise OSError("disk full")

    # When it runs threaded, then the failure comes through
    try:
        with pytest.raises(OSError, match="disk full"), caplog.at_level(logging.ERROR):
            Pipeline(Hanging(), writer=Failing(), threaded=True).run()
        assert "left behind" in caplog.text
    finally:
        release.set()


@pytest.mark.parametrize("job", ["..", ".", "../..", "/", "a/b", "", "x" * 300, "\ud800"])
def test_a_job_works_in_a_directory_of_its_own_whatever_its_id_is(job: str, tmp_path: Path) -> None:
    # What is there is removed at the end: with ".." that would be the state of all jobs
    work = tmp_path / "work"
    place = workplace_of(job, work)
    assert place.parent == work
    assert place.name not in ("", ".", "..")
    (tmp_path / "precious").write_text("state")
    workplace = Workplace(place)
    workplace.take()
    workplace.remove()
    assert (tmp_path / "precious").exists()
    assert work.is_dir()


def test_a_wait_for_a_store_ends_when_the_run_is_to_stop(tmp_path: Path) -> None:
    from resilient_exporters.pipeline import retries

    writer = FSWriter(filebase=str(tmp_path / "x"))

    def failing() -> None:
        raise ConnectionResetError("gone")

    retries.stop_waiting()
    try:
        with pytest.raises(Stopped):
            writer.attempt(failing, "writing")
    finally:
        retries.stop_waiting(False)


def test_a_job_of_code_is_resumed_in_code(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    one = Pipeline(three(), enough, writer=RecordingExporter(), persistence=SqlitePersistence(database=path))
    one.run()
    with pytest.raises(StateError, match="made in code"):
        Pipeline.from_persistence_configuration(one.uri)


def test_a_job_that_is_done_cannot_be_resumed_and_leaves_no_directory(tmp_path: Path) -> None:
    # Given a run that is killed in the instant in which it has finished: its directory is still there
    options: dict[str, Any] = {
        "persistence": SqlitePersistence(database=str(tmp_path / "jobs.db")), "work_dir": tmp_path / "work",
    }  # fmt: skip
    done = Pipeline(IterableReader([{"n": 1}]), writer=RecordingExporter(), **options)
    job = done.run().job
    workplace_of(job, tmp_path / "work").mkdir(parents=True)

    # When it is resumed, then it says so, offers no resume, and cleans up
    again = Pipeline(IterableReader([{"n": 1}]), writer=RecordingExporter(), resume=job, **options)
    with pytest.raises(StateError, match="has run to its end"):
        again.run()
    assert again.uri == ""
    assert not list((tmp_path / "work").iterdir())
