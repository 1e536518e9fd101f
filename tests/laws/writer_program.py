"""A pipeline that is killed while it posts records to a web service, or writes them as rows.

One record in a hundred is refused by the target, and put aside.

    python writer_program.py FOLDER RECORDS http|sql URL

It goes on with the job of the folder, if there is one. Says "begun" before the run and "done" after it.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.persistence import SqlitePersistence
from resilient_exporters.pipeline.readers.iterable import IterableReader
from resilient_exporters.pipeline.writers import HTTPWriter, SQLWriter
from tests.laws.pipeline_program import DATABASE, job_of

FULL = 70
"""Records in a request or in a transaction."""


def source(records: int) -> Iterator[dict[str, Any]]:
    """Numbers, some of them odd ones out."""
    for number in range(records):
        yield {"n": number, "text": f"reading number {number}" if fits(number) else None}


def fits(number: int) -> bool:
    """Whether the target takes it."""
    return number % 100 != 99


def pipeline(folder: Path, records: int, target: str, url: str) -> Pipeline:
    """The pipeline, made to go on with the job of the folder."""
    options: dict[str, Any] = {"items_per_buffer_write": FULL}
    writer: Any = (
        HTTPWriter(url=f"{url}/{folder.name}", **options)
        if target == "http"
        else SQLWriter(url=url, table=folder.name, **options)
    )
    return Pipeline(
        IterableReader(source(records), batch_size=50), writer=writer, resume=job_of(folder)[0], on_bad_record="dead",
        persistence=SqlitePersistence(database=str(folder / DATABASE)), work_dir=folder / "work",
    )  # fmt: skip


def main() -> None:
    faulthandler.enable()  # a test that finds it hanging aborts it
    folder, records, *rest = sys.argv[1:]
    run = pipeline(Path(folder), int(records), *rest)
    print("begun", flush=True)
    run.run()
    print("done", flush=True)


if __name__ == "__main__":
    main()
