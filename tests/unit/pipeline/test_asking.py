"""A server is asked again while that may help, and no longer than the run goes on."""

from __future__ import annotations

import pytest

from resilient_exporters import RetryPolicy
from resilient_exporters.pipeline import ConfigurationError, PipelineError, retries
from resilient_exporters.pipeline.asking import StopAsked, ask


class Server:
    """Raises one error after the other, then answers."""

    def __init__(self, *errors: Exception, stop_after: int = 99) -> None:
        self.errors = list(errors)
        self.asked = 0
        self.stop_after = stop_after

    def question(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    def ask(self) -> str:
        return ask(
            self.question,
            "reading things",
            passing=lambda error: isinstance(error, OSError),
            reason=lambda error: f"it said {error}",
            stopping=lambda: self.asked >= self.stop_after,
        )


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilient_exporters.pipeline.asking.SHORT", RetryPolicy(wait=0, stop=3))


@pytest.mark.usefixtures("no_waits")
def test_what_passes_is_waited_for_and_what_does_not_is_told() -> None:
    assert Server(OSError("busy"), OSError("busy")).ask() == "answer"
    with pytest.raises(PipelineError, match="reading things: it said busy"):
        Server(*[OSError("busy")] * 3).ask()
    refused = Server(KeyError("no"))
    with pytest.raises(PipelineError, match="reading things: it said"):
        refused.ask()
    assert refused.asked == 1
    for error in (PipelineError(None, "as it is"), ConfigurationError(None, "as it is")):
        with pytest.raises(type(error), match=r"^as it is$"):
            Server(error).ask()


def test_a_run_that_is_to_stop_does_not_wait_for_the_next_attempt() -> None:
    server = Server(*[OSError("busy")] * 10, stop_after=1)
    with pytest.raises(StopAsked):
        server.ask()
    assert server.asked == 1


def test_without_retries_it_is_asked_once() -> None:
    server = Server(OSError("busy"))
    with retries.disabled(), pytest.raises(PipelineError, match="it said busy"):
        server.ask()
    assert server.asked == 1
