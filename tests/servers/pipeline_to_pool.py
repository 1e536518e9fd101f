"""A program that runs or resumes a pipeline into a pool of file and MongoDB, for tests that kill it.

Argument: JSON with ``records``, how many; ``batch``; ``pool``, a section of a configuration; ``jobs``, the file of the
job's state. It prints a line when it is about to begin, one for each batch that it reads, and "done".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.persistence import SqlitePersistence
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.pipeline.writers import ExporterWriter


def readings(records: int) -> Iterator[dict[str, Any]]:
    for n in range(records):
        yield {"n": n, "text": f"reading {n} " + "x" * 40}


class Told(IterableReader):
    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        print("batch", flush=True)
        return super().get_next_batch()


def main(records: int, batch: int, pool: dict[str, Any], jobs: str) -> None:
    persistence = SqlitePersistence(database=jobs)
    begun = persistence.store.jobs()
    resume = begun[0].id if begun else None
    if begun and begun[0].finished:
        print("done", flush=True)
        return
    print("begin", flush=True)
    Pipeline(
        Told(readings(records), batch_size=batch),
        lambda record: record["n"] % 10 != 3,
        writer=ExporterWriter(exporter=pool, close_timeout=60.0),
        persistence=persistence,
        resume=resume,
    ).run()
    print("done", flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
