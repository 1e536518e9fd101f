"""``rexport demo``: a sensor program, and everything that may happen to it."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from resilient_exporters.cli.console import escape, number, rows, screen, size, table
from resilient_exporters.cli.demo_audit import Account, audit, in_database, in_file, in_queue
from resilient_exporters.delivery.ring import ring_path
from resilient_exporters.errors import MissingModuleError

__all__ = ["demo"]

RATE = 2000
_LOOK = 0.1
_END = 40.0  # seconds that the sensor program may take to deliver the rest


@click.command()
@click.option("--seconds", default=24.0, show_default=True, type=click.FloatRange(6, 3600), help="Length of the story.")
@click.option("--keep", is_flag=True, help="Keep the directory with the targets and the queue.")
def demo(seconds: float, keep: bool) -> None:
    """Watch a sensor program survive a dead link, a locked database and kill -9.

    A process of its own reads a sensor 2,000 times a second and sends each reading to a file and to a SQLite database.
    Then the link is cut, the process is killed, started again, and killed again. At the end the real content of both
    targets is compared with what was accepted. Exit code 1: something is lost, doubled or out of order.
    """
    try:
        import sqlalchemy  # noqa: F401 - the sensor program needs it: better said here than in its log
    except ModuleNotFoundError:
        what = "the demo writes to SQLite: pip install 'resilient-exporters[cli,sql]'"
        raise MissingModuleError(None, what) from None
    directory = Path(tempfile.mkdtemp(prefix="rexport-demo-"))
    story = _Story(directory, seconds)
    try:
        story.play()
        good = story.tell()
    finally:
        story.sensor.end()
    keep = keep or not good
    if not keep:
        ring = ring_path(story.places.queue)
        if ring is not None:
            ring.unlink(missing_ok=True)
        shutil.rmtree(directory)
    screen().print(f"queue directory  {story.places.queue}{'' if keep else '  (removed; --keep keeps it)'}")
    sys.exit(0 if good else 1)


class _Sensor:
    """The sensor program: started, killed, started again."""

    def __init__(self, directory: Path, log: Path) -> None:
        self._command = [sys.executable, "-m", "resilient_exporters.cli.demo_sensor", str(directory), str(RATE)]
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.status: dict[str, Any] = {"targets": {}, "disk": 0}
        self._up = threading.Event()

    def start(self) -> int:
        self._up.clear()
        with self._log.open("a") as log:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                self._command, stdout=subprocess.PIPE, stderr=log, text=True
            )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self._process.pid

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe, see start
        with process.stdout:
            for line in process.stdout:
                if line.endswith("\n"):  # else it was killed in the middle of it
                    self.status = json.loads(line)
                    self._up.set()

    def wait_until_up(self) -> None:
        """Wait until it sends: on a slow machine, starting takes a while."""
        self._up.wait(_END)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def failed(self) -> str:
        """What it said, if it ended by itself other than well."""
        if self._process is None or self._process.poll() in (None, 0, -signal.SIGKILL):
            return ""
        return self._log.read_text()[-2000:] or f"exit code {self._process.returncode}"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def end(self) -> None:
        if self.running:
            self.kill()


class _Story:
    """What happens when, and what is seen of it."""

    def __init__(self, directory: Path, seconds: float) -> None:
        # Not before sqlalchemy is known to be there.
        from resilient_exporters.cli.demo_sensor import Journal, Places

        self.places = Places(directory)
        self.journal = Journal(self.places.journal)
        self.sensor = _Sensor(directory, self.places.log)
        self._seconds = seconds
        self._began = time.monotonic()
        self._unsure: set[int] = set()
        self._locker: sqlite3.Connection | None = None
        self._news: list[str] = []
        self._console = screen()
        self._live = self._console.is_terminal

    # -- the script ------------------------------------------------------------------------------------------------

    def _script(self) -> list[tuple[float, Callable[[], str]]]:
        return [
            (0.00, self._start),
            (0.16, self._cut),
            (0.30, self._kill),
            (0.34, self._start),
            (0.50, self._mend),
            (0.62, self._lock),
            (0.76, self._unlock),
            (0.86, self._kill),
            (0.89, self._start),
            (1.00, self._stop),
        ]

    def _start(self) -> str:
        attempted = self.journal.read()[0]
        pid = self.sensor.start()
        what = "again, and finds what it had accepted" if attempted else f"to send {number(RATE)} readings a second"
        return f"the sensor program starts {what} (pid {pid})"

    def _cut(self) -> str:
        self.places.link.touch()
        return "the link goes down: both targets fail"

    def _mend(self) -> str:
        self.places.link.unlink()
        return "the link is back"

    def _kill(self) -> str:
        self.sensor.wait_until_up()
        self.sensor.kill()
        attempted, returned, _, _ = self.journal.read()
        self._unsure.update(range(returned, attempted))
        return f"kill -9 {'in the middle of the outage' if self.places.link.exists() else 'while all is well'}"

    def _lock(self) -> str:
        self._locker = sqlite3.connect(self.places.database, isolation_level=None, timeout=10)
        self._locker.execute("BEGIN EXCLUSIVE")
        return "someone locks the SQLite database: only the file goes on"

    def _unlock(self) -> str:
        if self._locker is not None:
            self._locker.rollback()
            self._locker.close()
            self._locker = None
        return "the SQLite database is free again"

    def _stop(self) -> str:
        self.sensor.wait_until_up()
        self.sensor.stop()
        return "the sensor program is asked to end, and delivers the rest"

    def play(self) -> None:
        """Let it all happen."""
        with Live(self, console=self._console, refresh_per_second=8) if self._live else nullcontext():
            for share, event in self._script():
                self._until(self._began + share * self._seconds)
                self._say(event())
            until = time.monotonic() + _END
            while self.sensor.running and time.monotonic() < until:
                self._wait(_LOOK)
        self._unlock()
        self.sensor.end()

    def _until(self, moment: float) -> None:
        said = time.monotonic()
        while (left := moment - time.monotonic()) > 0:
            if self.sensor.failed:
                raise click.ClickException(f"the sensor program failed:\n{self.sensor.failed}")
            if not self._live and time.monotonic() - said >= 2:
                said = time.monotonic()
                self._console.print(self._line())
            self._wait(min(_LOOK, left))

    @staticmethod
    def _wait(seconds: float) -> None:
        time.sleep(seconds)

    # -- what is seen ------------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        line = f"{time.monotonic() - self._began:5.1f} s  {text}"
        self._news.append(line)
        if not self._live:
            self._console.print(escape(line))

    def _line(self) -> str:
        parts = [f"{name} {number(one[0])} ({number(one[1])} wait)" for name, one in self._targets()]
        return f"         accepted {number(self.journal.read()[1])}; delivered: {', '.join(parts)}"

    def _targets(self) -> list[tuple[str, Any]]:
        return list(self.sensor.status["targets"].items())

    def __rich_console__(self, console: Console, options: object) -> Iterator[Any]:
        for line in self._news:
            yield escape(line)
        attempted, _, longest, written = self.journal.read()
        yield (
            f"\n[bold]{number(attempted)}[/] readings accepted, longest send() {longest / 1e6:.1f} ms, "
            f"queue on disk {size(self.sensor.status['disk'])}, written by it {size(written)}"
        )
        made = table("target", ">delivered", ">waiting", "state")
        running = self.sensor.running
        lines = [
            (name, number(done), number(waiting), state if running else "no process")
            for name, (done, waiting, state) in self._targets()
        ]
        yield rows(made, lines)

    def tell(self) -> bool:
        """Compare, and say what came out. Returns whether all is well."""
        attempted, returned, longest, written = self.journal.read()
        self._unsure.update(range(returned, attempted))
        accepted = attempted - len(self._unsure)
        made = table("target", ">accepted", ">delivered", ">still waiting", ">lost", ">doubled", ">out of order")
        accounts: list[Account] = []
        for name, found in (("file", in_file(self.places.file)), ("SQLite", in_database(self.places.database))):
            one = audit(found, attempted, self._unsure, in_queue(self.places.queue, name))
            accounts.append(one)
            figures = (accepted, one.delivered, one.waiting, one.lost, one.doubled, one.out_of_order)
            rows(made, [(name, *map(number, figures))])
        self._console.print("\nWhat the targets really hold:")
        self._console.print(made)
        if any(account.unsure for account in accounts):
            most = max(account.unsure for account in accounts)
            self._console.print(
                f"in send() at kill -9  {len(self._unsure)} readings: whether they count as accepted nobody can say; "
                f"{most} of them arrived"
            )
        self._console.print(f"longest send()   {longest / 1e6:.1f} ms")
        each = written / max(1, accepted)
        self._console.print(f"written to disk  {size(written)} by the queue, {each:.1f} bytes a reading")
        return bool(accepted) and all(account.good for account in accounts)
