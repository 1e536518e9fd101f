"""In which order a run calls its modules, and how it ends."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import tenacity

from resilient_exporters.pipeline import BaseRecord, BasicExporter, ItemsLimitReached, Pipeline, PipelineError, retries
from resilient_exporters.pipeline.filters import BaseFilter
from resilient_exporters.pipeline.groupers import BaseGrouper
from resilient_exporters.pipeline.notifications import CLIENTS, TEAM, BaseNotifier
from resilient_exporters.pipeline.persistence import SqlitePersistence
from resilient_exporters.pipeline.readers import BaseReader
from resilient_exporters.pipeline.stats import BaseStatsManager
from resilient_exporters.pipeline.transforms import BaseTransform
from resilient_exporters.pipeline.writers import BaseWriter
from resilient_exporters.policy import RetryPolicy
from tests.pipelines import Bomb, Even, Numbers

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


class Reader(BaseReader):
    batches = 2

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        CALLS.append("reader.get_next_batch")
        self.batches -= 1
        self.finished = not self.batches
        yield {"n": 1}

    def set_last_position(self, position: Any) -> None:
        CALLS.append(f"reader.set_last_position {position}")

    def get_last_position(self) -> Any:
        return {"left": self.batches}

    def close(self) -> None:
        CALLS.append("reader.close")


class Filter(BaseFilter):
    def filter(self, item: BaseRecord) -> bool:
        CALLS.append(f"{self.part}.filter")
        return True


class Transform(BaseTransform):
    def transform_batch(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        for record in batch:
            CALLS.append("transform")
            yield record


class Grouper(BaseGrouper):
    def group_batch(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        for record in batch:
            CALLS.append("grouper")
            yield record


class Writer(BaseWriter):
    def write_record(self, record: BaseRecord) -> None:
        CALLS.append("writer.write_record")

    def prepare(self) -> None:
        CALLS.append("writer.prepare")

    def committed(self) -> None:
        CALLS.append("writer.committed")

    def flush(self) -> None:
        CALLS.append("writer.flush")

    def finish_writing(self) -> None:
        CALLS.append("writer.finish_writing")

    def close(self) -> None:
        CALLS.append("writer.close")


class Persistence(SqlitePersistence):
    def generate_new_job(self, configuration: Any = None) -> str:
        CALLS.append("persistence.generate_new_job")
        return super().generate_new_job(configuration)

    def commit(self, checkpoint: Any) -> None:
        CALLS.append(f"persistence.commit {checkpoint.position}")
        super().commit(checkpoint)

    def close(self) -> None:
        CALLS.append("persistence.close")
        super().close()


class Stats(BaseStatsManager):
    times: list[list[str]] = []

    def iteration_report(self, times: dict[str, float]) -> None:
        CALLS.append("stats.iteration_report")
        assert list(times.values()) == sorted(times.values())
        self.times.append(list(times))

    def final_report(self) -> None:
        CALLS.append("stats.final_report")


class Notifier(BaseNotifier):
    def notify_start_dump(self, receivers: Any = (), info: Any = None) -> None:
        CALLS.append(f"start {receivers}")

    def notify_complete_dump(self, receivers: Any = (), info: Any = None) -> None:
        CALLS.append(f"complete {receivers}")

    def notify_failed_job(self, msg: str, stack_trace: str, receivers: Any = (), info: Any = None) -> None:
        assert "Traceback" in stack_trace
        assert info["end_time"] is not None
        CALLS.append(f"failed {msg} {receivers}")


def section(name: str, **options: Any) -> dict[str, Any]:
    return {"name": f"{__name__}.{name}", "options": options}


def configuration(**changes: Any) -> dict[str, Any]:
    return {
        "reader": section("Reader"),
        "filter_before": section("Filter"),
        "transform": section("Transform"),
        "filter_after": section("Filter"),
        "grouper": section("Grouper"),
        "writer": section("Writer"),
        "persistence": section("Persistence"),
        "stats_manager": section("Stats"),
        "exporter_options": {"notifications": [section("Notifier")]},
        **changes,
    }


def test_the_order_is_that_of_the_documents() -> None:
    BasicExporter(configuration()).export()

    batch = [
        "reader.get_next_batch", "filter_before.filter", "transform", "filter_after.filter", "grouper",
        "writer.write_record", "writer.prepare",
    ]  # fmt: skip
    after = ["writer.committed", "stats.iteration_report"]
    assert [
        "persistence.generate_new_job",
        "writer.prepare", "persistence.commit {'left': 2}", "writer.committed",
        f"start {(CLIENTS, TEAM)}",
        *batch, "persistence.commit {'left': 1}", *after,
        *batch, "persistence.commit {'left': 0}", *after,
        "writer.flush",
        *["writer.prepare", "persistence.commit {'left': 0}", "writer.committed"] * 2,
        "writer.finish_writing",
        "stats.final_report",
        "persistence.close",
        f"complete {(CLIENTS, TEAM)}",
        "reader.close", "writer.close",
    ] == CALLS  # fmt: skip


def test_a_failure_is_told_to_the_team_and_raised_and_all_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, record: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Writer, "write_record", full)
    with pytest.raises(OSError, match="disk full"):
        BasicExporter(configuration()).export()

    assert CALLS[-4:] == [f"failed disk full {(TEAM,)}", "reader.close", "writer.close", "persistence.close"]
    assert not any(call.startswith("complete") or call == "writer.flush" for call in CALLS)


@pytest.mark.parametrize("options", [{}, {"threaded": True}, {"forced_reads": True}])
def test_the_times_have_the_old_names_in_the_old_order(options: dict[str, Any]) -> None:
    Stats.times = []
    order = ["started", "read", "filtered", "transformed", "filtered_after", "grouped", "written", "persisted"]

    BasicExporter(configuration(exporter_options=options)).export()
    bare = {name: configuration()[name] for name in ("reader", "writer", "stats_manager")}
    BasicExporter({**bare, "exporter_options": options}).export()

    assert Stats.times == [order] * 4


def test_stages_are_lazy_unless_reads_are_forced() -> None:
    # Given a reader of two records a batch
    class Two(Reader):
        batches = 1

        def get_next_batch(self) -> Iterator[dict[str, Any]]:
            self.finished = True
            for number in range(2):
                CALLS.append(f"read {number}")
                yield {"n": number}

    def run(**options: Any) -> list[str]:
        CALLS.clear()
        Pipeline(Two(), writer=Writer(), **options).run()
        return [call for call in CALLS if call.startswith("read ") or call == "writer.write_record"]

    # Then a record is written before the next one is read, and forced_reads changes that
    assert run() == ["read 0", "writer.write_record", "read 1", "writer.write_record"]
    assert run(forced_reads=True) == ["read 0", "read 1", "writer.write_record", "writer.write_record"]


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("where", ["reader", "generator", "stage"])
def test_a_limit_that_is_reached_ends_the_run_well(where: str, threaded: bool) -> None:
    # Given a module that says after 13 records that it is enough
    class Limited(Numbers):
        def get_next_batch(self) -> Iterator[dict[str, Any]]:
            if where == "reader" and self.position["last_read"] >= 10:
                raise ItemsLimitReached(None, "enough")
            return super().get_next_batch()

    bomb = Bomb(14, ItemsLimitReached) if where == "generator" else None
    stage = Even(bomb=Bomb(14, ItemsLimitReached) if where == "stage" else None)

    # When it is run
    report = Pipeline(Limited(bomb=bomb), stage, writer=Writer(), threaded=threaded).run()

    # Then what came before is written, and it is complete
    assert report.complete
    assert report.written == (5 if where == "reader" else 7)
    assert CALLS[-3:] == ["writer.committed", "writer.finish_writing", "writer.close"]


@pytest.mark.parametrize("threaded", [False, True])
def test_items_limit_of_a_writer(threaded: bool) -> None:
    report = Pipeline(Numbers(), Even(), writer=Writer(items_limit=12), threaded=threaded).run()

    assert (report.complete, report.written) == (True, 12)
    assert CALLS.count("writer.write_record") == 12
    if not threaded:
        assert report.read == report.figures["reader"]["read_items"] == 23


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("threaded", [False, True])
def test_a_signal_stops_at_the_next_commit(number: signal.Signals, threaded: bool) -> None:
    # Given a run that gets a signal in its third batch
    class Signalled(Writer):
        def write_record(self, record: BaseRecord) -> None:
            kept.append(record["n"])
            if record["n"] == 25:
                os.kill(os.getpid(), number)

    kept: list[int] = []
    before = signal.getsignal(number)
    report = Pipeline(Numbers(), writer=Signalled(), threaded=threaded).run()

    # Then it wrote that batch to its end, and can be resumed after it
    assert not report.complete
    assert kept == list(range(30))
    assert signal.getsignal(number) is before
    Pipeline(Numbers(), writer=Signalled(), threaded=threaded, resume=report.job).run()
    assert kept == list(range(100))


@pytest.mark.parametrize("threaded", [False, True])
def test_a_signal_ends_the_wait_for_a_source_that_is_away(threaded: bool) -> None:
    # Given a reader that fails in its third batch, and waits for its next attempt
    class Away(Numbers):
        def get_next_batch(self) -> Iterator[dict[str, Any]]:
            if self.position["last_read"] == 20:
                retries.retrying(self.fail, "reading", RetryPolicy(tenacity.wait_fixed(3600), stop=10))
            return super().get_next_batch()

        def fail(self) -> None:
            written.wait(60)
            os.kill(os.getpid(), signal.SIGTERM)
            raise OSError("away")

    class Noting(Writer):
        def committed(self) -> None:
            if self.items_count == 20:
                written.set()

    written = threading.Event()
    notifier = Notifier()

    # Then the run stops at once, as asked, which is no failure
    report = Pipeline(Away(), writer=Noting(), threaded=threaded, notifications=[notifier]).run()
    assert (report.complete, report.written) == (False, 20)
    assert not any(call.startswith("failed") for call in CALLS)

    # And later runs wait for their retries again
    retries.retrying(Bomb(1), "it", RetryPolicy(tenacity.wait_fixed(0.01), stop=3))


def test_a_second_signal_does_what_it_always_does() -> None:
    class Signalled(Writer):
        def write_record(self, record: BaseRecord) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Pipeline(Numbers(), writer=Signalled()).run()


def test_another_thread_than_the_main_one_can_run_it() -> None:
    reports: list[Any] = []
    thread = threading.Thread(target=lambda: reports.append(Pipeline(Numbers(), writer=Writer()).run()))
    thread.start()
    thread.join()
    assert reports[0].complete


def test_several_pipelines_share_one_database() -> None:
    reports: list[Any] = []
    threads = [
        threading.Thread(target=lambda: reports.append(Pipeline(Numbers(), Even(), writer=Writer()).run()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(report.complete, report.written) for report in reports] == [(True, 50)] * 4
    assert len({report.job for report in reports}) == 4


def test_retries_can_be_switched_off_for_a_run() -> None:
    # Given a reader that needs two attempts
    class Flaky(Reader):
        def get_next_batch(self) -> Any:
            bomb = Bomb(1)
            retries.retrying(bomb, "reading", sleep=waits.append)
            return super().get_next_batch()

    waits: list[float] = []
    assert Pipeline(Flaky(), writer=Writer()).run().complete
    assert len(waits) == 2

    # When another run switches retries off, then that one gives up at once, and only that one
    with pytest.raises(OSError, match="disk full"):
        Pipeline(Flaky(), writer=Writer(), disable_retries=True).run()
    assert Pipeline(Flaky(), writer=Writer()).run().complete


def test_retries_stay_off_until_all_who_want_that_have_ended() -> None:
    first, second = retries.disabled(), retries.disabled()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(OSError, match="disk full"):
        retries.retrying(Bomb(1), "it", sleep=lambda _: None)
    second.__exit__(None, None, None)
    retries.retrying(Bomb(1), "it", sleep=lambda _: None)


def test_a_failing_stats_manager_or_notifier_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(BaseStatsManager):
        def iteration_report(self, times: dict[str, float]) -> None:
            raise ValueError("no figures today")

    class Deaf(BaseNotifier):
        def notify_start_dump(self, receivers: Any = (), info: Any = None) -> None:
            raise ValueError("nobody home")

    assert Pipeline(Reader(), writer=Writer(), stats_manager=Broken(), notifications=[Deaf()]).run().complete
    assert "STATS MANAGER: no figures today" in caplog.text
    assert "Deaf could not be told: nobody home" in caplog.text


def test_a_stats_manager_of_the_old_documents_gets_the_figures_too() -> None:
    class Old(BaseStatsManager):
        def iteration_report(self, times: dict[str, float], stats: Any) -> None:  # type: ignore[override] # the old form
            got.append(stats["writer"]["items_count"])

        def final_report(self, stats: Any) -> None:  # type: ignore[override] # as above
            got.append(stats["writer"]["items_count"])

    got: list[int] = []
    Pipeline(Reader(), writer=Writer(), stats_manager=Old()).run()
    assert got == [1, 2, 2]


def test_what_fails_in_closing_stops_none_of_the_rest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stuck(self: Any) -> None:
        raise OSError("stuck")

    monkeypatch.setattr(Reader, "close", stuck)
    assert Pipeline(Reader(), writer=Writer()).run().complete
    assert CALLS[-1] == "writer.close"
    assert "closing Reader: stuck" in caplog.text


def test_a_pipeline_runs_once() -> None:
    one = Pipeline([{"n": 1}], writer=Writer())
    one.run()
    with pytest.raises(PipelineError, match="ran already"):
        one.run()


@pytest.mark.parametrize("batch", [None, ["text"], [3]])
def test_a_reader_that_gives_no_records_is_named(batch: Any) -> None:
    class Odd(Reader):
        def get_next_batch(self) -> Any:
            return batch

    with pytest.raises(PipelineError, match="Odd gave"):
        Pipeline(Odd(), writer=Writer()).run()


def test_log_level_and_name_hold_for_all_modules_and_for_the_run_only(caplog: pytest.LogCaptureFixture) -> None:
    class Loud(Writer):
        def prepare(self) -> None:
            self.logger.info("preparing")

    logging.getLogger("of-mine").setLevel(logging.ERROR)
    Pipeline(Reader(), writer=Loud(), logger_name="of-mine", log_level="INFO").run()

    assert ("of-mine", logging.INFO, "WRITER: preparing") in caplog.record_tuples
    assert logging.getLogger("of-mine").level == logging.ERROR
