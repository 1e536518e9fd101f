from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import Exporter, ExporterPool, FileExporter, Retry
from resilient_exporters.jobs import Backlog, EventsExportJob, ExportProcess
from resilient_exporters.testing import FlakyTarget, RecordingExporter
from tests.programs import run, start


class Rows(EventsExportJob):
    """Sends rows to an exporter."""

    exporter: Exporter
    rows: Iterable[Any] = ()

    def export_events(self) -> int:
        return 1

    def send_data(self) -> None:
        self.count = self.send_with(self.exporter, self.rows, save_timeout=30)


def job(exporter: Exporter, rows: Iterable[Any]) -> Rows:
    made = Rows("bridge", "1", {})
    made.exporter, made.rows = exporter, rows
    return made


def numbers(count: int) -> list[dict[str, int]]:
    return [{"n": n} for n in range(count)]


def test_rows_reach_the_target() -> None:
    with RecordingExporter() as target:
        made = job(target, numbers(1000))
        assert made.run() == 0
        assert made.count == 1000
        assert target.wait_for(1000) == numbers(1000)


def test_the_job_has_succeeded_once_the_rows_are_durable_whatever_the_target_does(tmp_path: Path) -> None:
    # Given a target that is down
    with FlakyTarget([Retry(60)], name="t", directory=tmp_path / "q") as target:
        assert job(target, numbers(100)).run() == 0
        target.close(0)

    # Then the next one that opens the queue delivers them
    with RecordingExporter(name="t", directory=tmp_path / "q") as target:
        target.flush(60)
        assert target.wait_for(100) == numbers(100)


def test_rows_outlive_a_kill_of_the_program(tmp_path: Path) -> None:
    # Given a program that is killed right after its job succeeded, with nothing delivered
    program = """
        import os, signal, sys
        from resilient_exporters import Retry
        from resilient_exporters.testing import FlakyTarget
        from tests.unit.jobs.test_bridge import job, numbers
        target = FlakyTarget([Retry(60)], name="t", directory=sys.argv[1], loss_window=3600)
        print(job(target, numbers(500)).run(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    child = start(program, tmp_path / "q")
    out, err = child.communicate()
    assert out == "0\n", err

    # When a machine that lost its memory, the ring, starts again
    from resilient_exporters.delivery.ring import ring_path

    ring = ring_path(tmp_path / "q")
    if ring is not None:
        ring.unlink(missing_ok=True)
    with RecordingExporter(name="t", directory=tmp_path / "q") as target:
        target.flush(60)
        assert target.wait_for(500) == numbers(500)


def test_a_further_try_goes_on_after_the_rows_that_were_accepted() -> None:
    # Given rows that break off once
    broken = [True]

    class Breaks:
        def __iter__(self) -> Any:
            for n in range(10):
                if n == 7 and broken.pop():
                    broken.append(False)
                    raise OSError("the database went away")
                yield {"n": n}

    with RecordingExporter() as target:
        broken.append(True)
        assert job(target, Breaks()).run(max_try=2, retry_delay=0) == 0
        assert target.wait_for(10) == numbers(10)


def test_a_row_that_cannot_be_kept_fails_the_job_and_is_named() -> None:
    with RecordingExporter() as target:
        made = job(target, [{"n": 1}, {"n": object()}])
        assert made.run() == 300
        assert "row 2 was not accepted" in str(made.last_error)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "raise"])
def test_a_queue_that_is_too_small_fails_the_job(policy: str) -> None:
    with FlakyTarget([Retry(60)], max_records=10, on_full=policy) as target:
        made = job(target, numbers(50))
        assert made.run() == 300
        assert "full" in str(made.last_error) or "too small" in str(made.last_error)
        target.discard()
        target.close(0)


def test_a_queue_that_blocks_waits_for_room() -> None:
    with RecordingExporter(max_records=10, on_full="block") as target:
        assert job(target, numbers(200)).run() == 0
        assert target.wait_for(200) == numbers(200)


def test_a_disk_that_does_not_take_the_rows_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    with FlakyTarget([Retry(60)]) as target:
        monkeypatch.setattr(target, "save", lambda timeout=None: False)
        made = job(target, numbers(5))
        assert made.run() == 300
        assert "not on disk" in str(made.last_error)
        monkeypatch.undo()
        assert made.run() == 0  # the rows are queued once
        assert target.stats().accepted == 5


def test_a_closed_exporter_fails_the_job() -> None:
    target = RecordingExporter()
    target.close()
    assert job(target, numbers(5)).run() == 300


def test_a_pool_takes_rows_with_options(tmp_path: Path) -> None:
    class Tables(RecordingExporter):
        record_options = frozenset({"table"})

    tables = Tables()
    with ExporterPool([FileExporter(tmp_path / "out.jsonl"), tables], name="both") as pool:
        made = job(pool, [])
        assert made.send_with(pool, numbers(3), table="readings") == 3
        assert pool.flush(60).complete
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
    assert [record.options for batch in tables.batches for record in batch] == [{"table": "readings"}] * 3


def test_a_whole_slot_over_the_bridge(tmp_path: Path) -> None:
    class Nightly(EventsExportJob):
        def export_events(self) -> int:
            self.rows = [{"day": self.parms["date"], "n": n} for n in range(5)]
            return len(self.rows)

        def send_data(self) -> None:
            with FileExporter(tmp_path / "out.jsonl") as file:
                self.send_with(file, self.rows)

    assert ExportProcess(Nightly, Backlog("nightly", tmp_path)).run(1, 0) == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5


KILLED = """
    import os, signal, sys
    from resilient_exporters import Retry
    from resilient_exporters.jobs import Backlog, EventsExportJob, ExportProcess
    from resilient_exporters.testing import FlakyTarget

    place, resume = sys.argv[1], sys.argv[2] == "resume"

    class Nightly(EventsExportJob):
        def export_events(self):
            return 500

        def rows(self):
            for n in range(500):
                if n == 300 and self.parms["name"] == sys.argv[3]:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield {"name": self.parms["name"], "n": n}

        def send_data(self):
            with FlakyTarget([Retry(60)], name="t", directory=place + "/q") as target:
                self.send_with(target, self.rows(), resume=resume)
                target.close(0)

    backlog = Backlog("nightly", place)
    for name in sys.argv[4].split(","):
        backlog[name] = {"name": name}
    print(ExportProcess(Nightly, backlog, {"name": "today"}).run(1, 0))
"""


@pytest.mark.parametrize("resume", [True, False])
def test_rows_of_a_slot_that_was_killed_among_them(tmp_path: Path, resume: bool) -> None:
    # Given a slot that is killed at row 300 of job "b"; then an older job joins
    how = "resume" if resume else "again"
    child = start(KILLED, tmp_path, how, "b", "b")
    child.communicate()
    assert child.returncode < 0

    # When the next slot runs "a", which queues rows before "b" does
    assert run(KILLED, tmp_path, how, "nobody", "a") == "0\n"

    # Then
    with RecordingExporter(name="t", directory=tmp_path / "q") as target:
        target.flush(60)
        got = [(row["name"], row["n"]) for row in target.records]
    wanted = {(name, n) for name in ("a", "b") for n in range(500)}
    assert wanted <= set(got)
    today = sum(name == "today" for name, _ in got)
    assert len(got) - today == (1000 if resume else 1300)
    assert today == 1000  # of two slots, which ran their own first: digits sort before letters


def test_a_failure_among_the_rows_is_remembered_by_the_next_slot(tmp_path: Path) -> None:
    class Breaks(EventsExportJob):
        broken = True

        def export_events(self) -> int:
            return 10

        def rows(self) -> Iterable[Any]:
            for n in range(10):
                if n == 6 and Breaks.broken:
                    raise OSError("the database went away")
                yield {"n": n, "job": self.job_id}

        def send_data(self) -> None:
            self.send_with(target, self.rows(), resume=True)

    with RecordingExporter(name="t") as target:
        backlog = Backlog("nightly", tmp_path)
        first = ExportProcess(Breaks, backlog)
        assert first.run(2, 0) == 300
        Breaks.broken = False
        second = ExportProcess(Breaks, backlog)
        assert second.run(1, 0) == 0
        target.wait_for(20)
        for process in (first, second):
            assert [row["n"] for row in target.records if row["job"] == process.report.job] == list(range(10))
