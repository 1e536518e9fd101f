"""A pipeline that is killed: duplicates left out, records grouped, gz files on a disk or in S3.

    python pipeline_program.py FOLDER RECORDS fs|s3 [URL of the S3 server]

It goes on with the job of the folder, if there is one. Says "begun" before the run and "done" after it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from resilient_exporters.pipeline import BaseRecord, Pipeline
from resilient_exporters.pipeline.checkpoint import Store
from resilient_exporters.pipeline.filters import DupeFilter
from resilient_exporters.pipeline.groupers.base import BaseGrouper
from resilient_exporters.pipeline.persistence import SqlitePersistence
from resilient_exporters.pipeline.readers.iterable import IterableReader
from resilient_exporters.pipeline.writers import FSWriter, S3Writer, buffered

DATABASE = "jobs.db"
BUCKET = "readings"
FULL = 500
"""Records in a file."""


class PlaceGrouper(BaseGrouper):
    """By place; some are no names for files."""

    def group_batch(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        for record in batch:
            record.group_membership = (record["place"],)
            yield record


def source(records: int) -> Iterator[dict[str, Any]]:
    """Readings of which one in ten comes twice, some of them much later."""
    for number in range(records):
        key = number if number % 10 else number // 2
        yield {"key": key, "place": place(key), "value": key * 7 % 1000, "text": f"reading number {key}"}


def place(key: int) -> str:
    """A few places with much, many with little."""
    return f"hall-{key % 5}" if key % 4 else f"gate-{key % 100}"


def job_of(folder: Path) -> tuple[str | None, bool]:
    """The job of a folder, and whether it is done."""
    if not (folder / DATABASE).exists():
        return None, False
    store = Store(folder / DATABASE)
    try:
        jobs = store.jobs()
    finally:
        store.close()
    return (jobs[0].id, jobs[0].finished) if jobs else (None, False)


def pipeline(folder: Path, records: int, target: str, url: str = "") -> Pipeline:
    """The pipeline, made to go on with the job of the folder."""
    options: dict[str, Any] = {"items_per_buffer_write": FULL, "generate_md5": True}
    writer: Any = (
        FSWriter(filebase=f"{folder}/out/{{groups[0]}}/readings_", **options)
        if target == "fs"
        else S3Writer(
            filebase=f"{folder.name}/{{groups[0]}}/readings_", bucket=BUCKET, host=url, aws_access_key_id="test",
            aws_secret_access_key="test", **options,
        )
    )  # fmt: skip
    return Pipeline(
        IterableReader(source(records)), DupeFilter(key_field="key"), PlaceGrouper(), writer=writer,
        resume=job_of(folder)[0],
        persistence=SqlitePersistence(database=str(folder / DATABASE)), work_dir=folder / "work",
    )  # fmt: skip


def main() -> None:
    folder, records, *rest = sys.argv[1:]
    vars(buffered)["_EARLY"] = 15_000  # some of these small files go the way of large ones
    run = pipeline(Path(folder), int(records), *rest)
    print("begun", flush=True)
    run.run()
    print("done", flush=True)


if __name__ == "__main__":
    main()
