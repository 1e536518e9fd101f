"""How far a run is: log lines now and then, or a line that moves."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import pytest

from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline import progress as module
from resilient_exporters.pipeline.progress import Progress
from resilient_exporters.pipeline.writers import BaseWriter
from tests.pipelines import Numbers


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Half(Numbers):
    share: float | None = 0.0

    def share_done(self) -> float | None:
        return self.share


class Quiet(BaseWriter):
    def write_record(self, record: Any) -> None:
        pass


def test_a_line_each_minute_with_rate_and_time_left(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reader = Half()
    progress = Progress(logging.getLogger("p"), reader, terminal=False)

    # Given a reader that was resumed at a fifth of its source
    reader.share = 0.2
    progress.update(0, 20)
    assert caplog.messages == []
    for second, share in ((30, 0.3), (60, 0.4), (90, 0.5), (125, 1.0)):
        clock.now, reader.share = 1000.0 + second, share
        progress.update(second * 10, 20 + second * 10)

    # Then a line is said after each minute, and the time left is judged by what this run did
    assert caplog.messages == [
        "EXPORTMANAGER: 600 records read, 620 written, 10/s, 40%, 3 min 0 s to go",
        "EXPORTMANAGER: 1,250 records read, 1,270 written, 10/s, 100%",
    ]


def test_without_a_known_end_there_is_a_rate_only(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress(logging.getLogger("p"), Numbers(), terminal=False)
    clock.now += 61
    progress.update(610, 305)
    clock.now += 7200 - 61
    progress.close(7200, 305)
    assert caplog.messages == [
        "EXPORTMANAGER: 610 records read, 305 written, 10/s",
        "EXPORTMANAGER: 7200 records read, 305 written in 2 h 0 min, 1/s",
    ]


def test_on_a_terminal_a_line_moves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    Pipeline(Numbers(), writer=Quiet(), progress=True).run()
    assert "100 records read, 100 written" in screen.getvalue()


def test_a_writer_that_prints_keeps_the_terminal_for_itself() -> None:
    class Printing(Quiet):
        prints = True

    assert Pipeline([], writer=Printing()).progress is False
    assert Pipeline([], writer=Quiet()).progress is None
