"""Reader, stages and writer in a thread each: what fails in one of them fails the run."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from resilient_exporters.pipeline import BadRecordError, Pipeline
from resilient_exporters.pipeline.notifications import BaseNotifier
from resilient_exporters.pipeline.persistence import SqlitePersistence
from resilient_exporters.pipeline.transforms import BaseTransform
from resilient_exporters.pipeline.writers import BaseWriter
from tests.pipelines import Bomb, Even, Grouping, LinesWriter, Numbers, Tenfold


class Telling(BaseNotifier):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def notify_complete_dump(self, receivers: Any = (), info: Any = None) -> None:
        self.told.append("complete")

    def notify_failed_job(self, msg: str, stack_trace: str, receivers: Any = (), info: Any = None) -> None:
        self.told.append(msg)


@pytest.mark.parametrize("where", ["reader", "filter", "transform", "grouper", "write", "prepare", "committed"])
def test_fault_4_what_goes_wrong_in_any_thread_fails_the_run(where: str, tmp_path: Any) -> None:
    # Given a part that fails in one of the three threads (the old system went on, and said "complete")
    bombs = {where: Bomb(7)}
    teller = Telling()
    one = Pipeline(
        Numbers(bomb=bombs.get("reader")),
        Even(bomb=bombs.get("filter")),
        Tenfold(bomb=bombs.get("transform")),
        Grouping(bomb=bombs.get("grouper")),
        writer=LinesWriter(path=str(tmp_path / "o.jl"), bombs=bombs),
        notifications=[teller],
        threaded=True,
        thread_queue_size=1,
    )

    # Then the run raises it, the team hears of it, nobody hears of a completion, and no thread is left
    with pytest.raises(OSError, match="disk full"):
        one.run()
    assert teller.told == ["disk full"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipeline-")]
    assert not (tmp_path / "o.jl").exists()


def test_a_reader_far_ahead_waits_for_the_writer() -> None:
    # Given a writer that stands still until the reader has filled the queues
    seen: list[int] = []

    class Waiting(BaseWriter):
        def write_record(self, record: Any) -> None:
            seen.append(reader.position["last_read"])

    reader = Numbers(count=1000, batch_size=10)
    Pipeline(reader, writer=Waiting(), threaded=True, thread_queue_size=2).run()

    # Then it is never further ahead than the queues, and what the threads have in hand
    assert max(at - number for number, at in enumerate(seen)) <= 10 * (2 + 2 + 4)


def test_what_is_put_aside_far_ahead_is_committed_with_its_own_batch(tmp_path: Any) -> None:
    class Odd(BaseTransform):
        def transform_batch(self, batch: Any) -> Any:
            for record in batch:
                if record["n"] % 10 == 5:
                    self.bad_records.add(dict(record), "a five", part=self.part)
                else:
                    yield record

    def make(bombs: dict[str, Bomb], job: str | None = None) -> Pipeline:
        writer = LinesWriter(path=str(tmp_path / "o.jl"), bombs=bombs)
        return Pipeline(Numbers(), Odd(), writer=writer, threaded=True, on_bad_record="dead", resume=job)

    # Given a run that fails in its fourth batch, while the stages are done with all ten
    one = make({"write": Bomb(30)})
    with pytest.raises(OSError, match="disk full"):
        one.run()

    # When it is resumed, then each bad record is there once
    report = make({}, one.uri.rpartition(":")[2]).run()
    persistence = SqlitePersistence()
    dead = persistence.store.dead(report.job)
    persistence.close()
    assert [letter.data["n"] for letter in dead] == list(range(5, 100, 10))
    assert {letter.reason for letter in dead} == {"a five"}


def test_a_bad_record_in_a_thread_fails_the_run_if_it_should() -> None:
    def stage(record: dict[str, Any]) -> bool:
        return bool(1 / (record["n"] - 50))

    with pytest.raises(BadRecordError, match="ZeroDivisionError"):
        Pipeline(Numbers(), stage, writer=LinesWriter(path="o"), threaded=True).run()
