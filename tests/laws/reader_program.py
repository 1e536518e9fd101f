"""A pipeline that reads files or a log, and is killed.

    python reader_program.py FOLDER files|log

It goes on with the job of the folder, if there is one. Says "begun" once the job is on record and "done" after it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.notifications import BaseNotifier
from resilient_exporters.pipeline.persistence import SqlitePersistence
from resilient_exporters.pipeline.readers import FSReader, TailReader
from resilient_exporters.pipeline.writers import FSWriter
from tests.laws.pipeline_program import DATABASE, job_of


class Ending(TailReader):
    """Ends once nothing more came for a while after there is a file "stop" beside the log."""

    idle = 0
    place: Any = None

    def pause(self, seconds: float) -> None:
        if Path(self.read_option("path")).with_name("stop").exists():
            place = self.get_last_position()
            self.idle = self.idle + 1 if place == self.place else 0
            self.place = place
            self.finished = self.idle > 3
        super().pause(seconds)


class Begun(BaseNotifier):
    """Says so once the job is on record, with the place at which it begins."""

    def notify_start_dump(self, receivers: Any = None, info: Any = None) -> None:
        print("begun", flush=True)


def main() -> None:
    folder, source = Path(sys.argv[1]), sys.argv[2]
    reader: Any = (
        FSReader(input={"dir": str(folder / "in")}, batch_size=70)
        if source == "files"
        else Ending(path=str(folder / "in" / "log"), follow=True, poll=0.01, batch_size=70)
    )
    run = Pipeline(
        reader, writer=FSWriter(filebase=f"{folder}/out/r_", compression="none"), on_bad_record="dead",
        persistence=SqlitePersistence(database=str(folder / DATABASE)), work_dir=folder / "work",
        resume=job_of(folder)[0], notifications=[Begun()],
    )  # fmt: skip
    run.run()
    print("done", flush=True)


if __name__ == "__main__":
    main()
