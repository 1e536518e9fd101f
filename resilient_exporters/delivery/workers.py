"""Worker threads: run attempts, and can be left behind when a target hangs.

Not a ``ThreadPoolExecutor``: the interpreter joins its threads before it exits, so one hanging target would keep the
program from ending.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["Workers"]

log = logging.getLogger("resilient_exporters")


class Workers:
    """Daemon threads that share one list of jobs. One more is started when all are busy.

    Args:
        name: of the threads.
        ready: threads that are started with the first job.
    """

    def __init__(self, name: str, ready: int = 1) -> None:
        self._name = name
        self._ready = ready
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._started = 0
        self._open = True
        self._short = False

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job soon. It must not raise."""
        with self._lock:
            if not self._open:
                return
            wanted = max(0 if self._idle > 0 else 1, self._ready - self._started)
            self._idle -= 1
            for _ in range(wanted):
                self._start()
            self._jobs.put(job)

    def catch_up(self) -> bool:
        """Start threads for jobs that wait because the system had none. Returns whether some still wait."""
        with self._lock:
            for _ in range(-self._idle):
                self._start()
            return self._idle < 0 and self._open

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{self._started + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # The system has no more threads for us: the job waits for one that is busy, or for the next try.
            if not self._short:
                self._short = True
                log.warning("no further delivery thread: %s", error)
            return
        self._short = False
        self._started += 1
        self._idle += 1

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            try:
                job()
            except BaseException:
                log.exception("a delivery thread failed")
            del job
            with self._lock:
                if not self._open:
                    return
                self._idle += 1

    def close(self) -> None:
        """End the idle threads now, the busy ones after their job. Waits for none."""
        with self._lock:
            self._open = False
            for _ in range(self._started):
                self._jobs.put(None)
