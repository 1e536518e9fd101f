"""A run that ends anywhere and is resumed gives every record once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import Pipeline, PipelineError, StateError
from resilient_exporters.pipeline.persistence import SqlitePersistence
from resilient_exporters.pipeline.writers import BaseWriter
from resilient_exporters.testing import RecordingExporter
from tests.pipelines import Bomb, Even, Grouping, LinesWriter, Numbers, Seen, Tenfold, written

EXPECTED = [n * 10 for n in range(0, 100, 2)]
STAGES = ["reader", "filter", "transform", "grouper", "write", "prepare", "flush", "committed", "finish_writing"]


def pipeline(path: Path, bombs: dict[str, Bomb], **options: Any) -> Pipeline:
    return Pipeline(
        Numbers(bomb=bombs.get("reader")),
        Even(bomb=bombs.get("filter")),
        Tenfold(bomb=bombs.get("transform")),
        Grouping(bomb=bombs.get("grouper")),
        writer=LinesWriter(path=str(path), bombs=bombs),
        **options,
    )


def until_done(path: Path, bombs: dict[str, Bomb], **options: Any) -> int:
    """Run and resume until it is done. Returns how often it failed."""
    job, failures = None, 0
    while True:
        one = pipeline(path, bombs, resume=job, **options)
        try:
            report = one.run()
        except OSError:
            failures += 1
            job = job or (one.uri.rpartition(":")[2] or None)
            continue
        assert report.complete
        assert report.written == len(EXPECTED)
        return failures


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_an_exception_in_any_stage_costs_and_doubles_nothing(stage: str, threaded: bool, tmp_path: Path) -> None:
    calls = {"prepare": (1, 6, 12), "committed": (1, 12), "flush": (1,), "finish_writing": (1,)}
    for at in calls.get(stage, (1, 23, 50)):
        path = tmp_path / f"{at}.jl"

        failures = until_done(path, {stage: Bomb(at)}, threaded=threaded)

        assert failures == 1
        assert written(path) == EXPECTED


def test_fault_1_a_failure_at_any_batch_loses_nothing_that_was_only_buffered(tmp_path: Path) -> None:
    # Given a writer that holds all records in its buffer until the end
    for batch in range(10):
        path = tmp_path / f"{batch}.jl"

        # When the run fails in the first record of a batch, and is resumed
        until_done(path, {"reader": Bomb(batch * 10 + 1)})

        # Then all records are there: the old system had committed positions of records that it then lost
        assert written(path) == EXPECTED


def test_a_failure_at_every_second_step_comes_to_an_end(tmp_path: Path) -> None:
    job = None
    path = tmp_path / "out.jl"
    for at in range(2, 200, 7):
        one = pipeline(path, {"prepare": Bomb(3), "transform": Bomb(at)}, resume=job)
        try:
            one.run()
            break
        except OSError:
            job = one.uri.rpartition(":")[2]
    assert written(path) == EXPECTED


def test_fault_14_the_state_of_a_stage_is_resumed(tmp_path: Path) -> None:
    # Given the same numbers twice, and a filter that knows what it saw
    records = [{"n": n} for n in [*range(50), *range(50)]]

    def make(bombs: dict[str, Bomb], job: str | None) -> Pipeline:
        return Pipeline(records, Seen(), writer=LinesWriter(path=str(tmp_path / "o.jl"), bombs=bombs), resume=job)

    first = make({"write": Bomb(45)}, None)
    first.reader.options["batch_size"] = 10
    with pytest.raises(OSError, match="disk full"):
        first.run()

    # When a new process goes on with it
    second = make({}, first.uri.rpartition(":")[2])
    second.reader.options["batch_size"] = 10
    second.run()

    # Then what was seen before the failure is left out after it
    assert written(tmp_path / "o.jl") == list(range(50))


def test_a_module_without_any_state_is_resumed_too() -> None:
    # Given a writer and stages that keep no state at all
    class Bare(BaseWriter):
        def write_record(self, record: Any) -> None:
            bomb()
            kept.append(record["n"])

        def get_state(self) -> None:
            return None

    kept: list[int] = []
    bomb = Bomb(26)
    first = Pipeline(Numbers(count=40), writer=Bare())
    with pytest.raises(OSError, match="disk full"):
        first.run()

    # When it is resumed
    Pipeline(Numbers(count=40), writer=Bare(), resume=first.uri.rpartition(":")[2]).run()

    # Then it goes on at the last commit, after 20, and does not begin anew
    assert kept == [*range(25), *range(20, 40)]


def test_an_exporter_as_writer_gets_each_record_once() -> None:
    exporter = RecordingExporter()
    bomb = Bomb(37)

    def stage(record: dict[str, Any]) -> bool:
        bomb()
        return True

    first = Pipeline(Numbers(), stage, writer=exporter)
    with pytest.raises(PipelineError):  # a callable that raises makes a bad record
        first.run()
    Pipeline(Numbers(), stage, writer=exporter, resume=first.uri.rpartition(":")[2]).run()
    exporter.flush(30)

    assert [record["n"] for record in exporter.records] == list(range(100))


def test_a_finished_job_is_not_resumed(tmp_path: Path) -> None:
    one = pipeline(tmp_path / "o.jl", {})
    job = one.run().job

    with pytest.raises(StateError, match="has run to its end"):
        pipeline(tmp_path / "o.jl", {}, resume=job).run()
    assert written(tmp_path / "o.jl") == EXPECTED


def test_an_unknown_job_makes_no_directory(own_queues: Path) -> None:
    with pytest.raises(StateError, match="there is no job nobody"):
        Pipeline([], writer=RecordingExporter(), resume="nobody").run()
    assert not list(own_queues.rglob("nobody"))


def test_a_job_whose_first_commit_failed_begins_anew(tmp_path: Path) -> None:
    bombs = {"prepare": Bomb(1)}
    one = pipeline(tmp_path / "o.jl", bombs)
    with pytest.raises(OSError, match="disk full"):
        one.run()

    pipeline(tmp_path / "o.jl", bombs, resume=one.uri.rpartition(":")[2]).run()

    assert written(tmp_path / "o.jl") == EXPECTED


def test_two_processes_cannot_go_on_with_one_job(tmp_path: Path) -> None:
    # Given a run in the middle of its work
    other: list[BaseException] = []

    class Meddling(LinesWriter):
        def write_record(self, record: Any) -> None:
            super().write_record(record)
            if record["n"] == 30 and not other:
                try:
                    Pipeline(Numbers(), writer=LinesWriter(path="x"), resume=one.uri.rpartition(":")[2]).run()
                except StateError as error:
                    other.append(error)

    # When somebody resumes the same job meanwhile
    one = Pipeline(Numbers(), writer=Meddling(path=str(tmp_path / "o.jl")))
    one.run()

    # Then that one is refused, and the first is not disturbed
    assert "another process runs this job" in str(other[0])
    assert written(tmp_path / "o.jl") == list(range(100))


def test_a_process_that_was_overtaken_cannot_commit(tmp_path: Path) -> None:
    # Given a run on another machine, which the lock of the directory does not reach
    class Overtaken(LinesWriter):
        def write_record(self, record: Any) -> None:
            super().write_record(record)
            if record["n"] == 30:
                with_other = SqlitePersistence()
                with_other.claim(one.uri.rpartition(":")[2])
                with_other.close()

    one = Pipeline(Numbers(), writer=Overtaken(path=str(tmp_path / "o.jl")))

    # Then its next commit fails, rather than to mix with the other's
    with pytest.raises(StateError, match="taken over by another process"):
        one.run()


def test_the_state_of_another_configuration_is_refused(tmp_path: Path) -> None:
    one = pipeline(tmp_path / "o.jl", {"write": Bomb(20)})
    with pytest.raises(OSError, match="disk full"):
        one.run()
    job = one.uri.rpartition(":")[2]

    others = {
        "reader: count was 100": Pipeline(Numbers(count=7), Even(), Tenfold(), Grouping(), writer=one.writer),
        "class was Even": Pipeline(Numbers(), Seen(), Tenfold(), Grouping(), writer=one.writer),
        "grouper": Pipeline(Numbers(), Even(), Tenfold(), writer=one.writer),
        "path was": Pipeline(Numbers(), Even(), Tenfold(), Grouping(), writer=LinesWriter(path="other")),
    }
    others["reader: count was 100"].reader.options["count"] = 7
    for text, other in others.items():
        other.resume = job
        with pytest.raises(StateError, match="another configuration") as caught:
            other.run()
        assert text.split(" was")[0].split(": ")[-1] in str(caught.value)


def test_the_formatter_belongs_to_the_configuration(tmp_path: Path) -> None:
    from resilient_exporters.pipeline.formatters import JsonExportFormatter

    one = pipeline(tmp_path / "o.jl", {"write": Bomb(20)})
    with pytest.raises(OSError, match="disk full"):
        one.run()
    other = pipeline(
        tmp_path / "o.jl", {}, resume=one.uri.rpartition(":")[2], formatter=JsonExportFormatter(jsonlines=False)
    )

    with pytest.raises(StateError, match="formatter: jsonlines was not given, now is False"):
        other.run()


def test_nothing_of_a_finished_run_stays_behind(tmp_path: Path, own_queues: Path) -> None:
    """Fault 11: temporary state files remained after success."""
    report = pipeline(tmp_path / "o.jl", {}).run()

    assert not (own_queues / "pipelines" / "work" / report.job).exists()
    persistence = SqlitePersistence()
    assert persistence.load(report.job).finished
    assert persistence.states(report.job) == {}
    persistence.close()


def test_figures_are_those_of_what_was_committed(tmp_path: Path) -> None:
    # Given a threaded run that fails while its reader is far ahead
    one = pipeline(tmp_path / "o.jl", {"write": Bomb(23)}, threaded=True)
    with pytest.raises(OSError, match="disk full"):
        one.run()
    persistence = SqlitePersistence()
    kept = persistence.load(one.uri.rpartition(":")[2])
    persistence.close()

    # Then position and figures say what was written, not what was read
    assert kept.position == {"last_read": 40}
    assert kept.figures["reader"]["read_items"] == 40
    assert kept.figures["writer"]["items_count"] == 20

    # And they go on from there
    report = pipeline(tmp_path / "o.jl", {}, resume=kept.id).run()
    assert report.figures["reader"]["read_items"] == 100
    assert report.figures["stage_0"] == {"filtered_out": 50}
