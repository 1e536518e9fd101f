"""A reader that waits for records ends its batch when the run is to stop, and hears what is committed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.readers import BaseReader
from resilient_exporters.pipeline.writers import BaseWriter


class Polling(BaseReader):
    """Gives two records, then waits for more for ever; ``then`` is done once it waits."""

    def __init__(self, then: Any = None) -> None:
        super().__init__()
        self.then = then
        self.at = 0
        self.heard: list[Any] = []

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        if self.at < 2:
            self.at += 1
            yield {"n": self.at}
            return
        if self.then is not None:
            self.then()
        while not self.stopping():
            pass

    def get_last_position(self) -> Any:
        return self.at

    def committed(self, position: Any) -> None:
        self.heard.append(position)


class Failing(BaseWriter):
    def write_record(self, record: Any) -> None:
        if record["n"] == 2:
            raise OSError("disk full")


class Keeping(BaseWriter):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[int] = []

    def write_record(self, record: Any) -> None:
        self.kept.append(record["n"])


@pytest.mark.parametrize("threaded", [False, True])
def test_a_waiting_reader_stops_when_asked_to(threaded: bool) -> None:
    # Given a reader that waits for records that never come
    reader, writer = Polling(lambda: os.kill(os.getpid(), signal.SIGTERM)), Keeping()

    # When the run is asked to stop
    report = Pipeline(reader, writer=writer, threaded=threaded).run()

    # Then it ends, resumable, and the reader heard of each commit
    assert not report.complete
    assert reader.heard[-1] == len(writer.kept)
    assert writer.kept == ([1, 2][: len(writer.kept)] if threaded else [1, 2])


def test_a_waiting_reader_does_not_hold_up_a_run_that_failed() -> None:
    with pytest.raises(OSError, match="disk full"):
        Pipeline(Polling(), writer=Failing(), threaded=True).run()
