"""How users write against the public names. Never run: `make lint` type-checks it by the strict rules."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import resilient_exporters
from resilient_exporters import (
    Batch,
    CloseReport,
    DeadLetter,
    Delivered,
    Exporter,
    ExporterPool,
    ExportResult,
    FileExporter,
    FlushReport,
    Hold,
    Outcome,
    QueueFullError,
    Receipt,
    Record,
    Reject,
    ResilientExporterException,
    Retry,
    RetryPolicy,
    Split,
    SQLExporter,
    Stats,
    from_url,
)


class Webhook(Exporter):
    kind = "webhook"
    retryable = (*Exporter.retryable, LookupError)

    def address(self) -> str:
        return "hook"

    def connect(self) -> None: ...

    def export(self, batch: Batch) -> Outcome | Sequence[Outcome | None] | None:
        if len(batch) > 100:
            return Split()
        return [self.post(record) for record in batch]

    def post(self, record: Record) -> Outcome | None:
        key: str = record.id
        if not key:
            return Hold("no key")
        answers: dict[int, Outcome] = {200: Delivered(key), 400: Reject("bad"), 429: Retry(after=1.5)}
        return answers.get(len(key))


def options() -> Exporter:
    return FileExporter(
        "readings.jsonl",
        1000,
        transform=lambda data: data,
        timeout=10,
        name="log",
        directory=Path("queue"),
        loss_window=timedelta(seconds=2),
        max_memory="8 MB",
        max_disk=64_000_000,
        max_age=86_400.0,
        on_full="raise",
        batch_records=100,
        batch_bytes="256 KB",
        drain="newest_first",
        retry=RetryPolicy(),
    )


def use(exporter: Exporter) -> None:
    with exporter:
        receipt: Receipt = exporter.send({"temperature": 21.5}, table="readings")
        identity: str | None = receipt.id
        done: bool = receipt.done()
        result: ExportResult = receipt.result(timeout=1.0)
        returned: Any = result.returned
        successful: bool = result.successful
        returned, successful = receipt
        flushed: FlushReport = exporter.flush(timeout=5.0, max_records=100)
        complete: bool = flushed.complete
        saved: bool = exporter.save(timeout=1.0)
        stats: Stats = exporter.stats()
        pending: int = stats.pending
        state: str = stats.targets["log"].state
        letters: Iterator[DeadLetter] = exporter.dead_letters()
        reasons: list[str] = [letter.reason for letter in letters]
        replayed: int = exporter.replay(*reasons)
        discarded: int = exporter.discard()
        results: list[ExportResult] = exporter.send_unsent_data()
        where: Path | None = exporter.directory
    closed: CloseReport = exporter.close(timeout=1.0)
    lost: int = closed.lost
    print(identity, done, complete, saved, pending, state, replayed, discarded, results, where, lost)
    print(returned, successful)


def pools() -> None:
    pool = ExporterPool([FileExporter("a.jsonl"), SQLExporter("sqlite:///a.db")], num_threads=2)
    pool.add_exporter(from_url("file:///b.jsonl"))
    members: int = len(pool)
    names: list[str] = [member.name for member in pool]
    try:
        for result in pool.send({"a": 1}):
            print(result)
    except (QueueFullError, ResilientExporterException) as error:
        print(error, members, names)
    resilient_exporters.add_exporter(pool)
    resilient_exporters.send({"b": 2}, table="readings")


async def asynchronous(exporter: Exporter) -> ExportResult:
    return await exporter.send("line")


asyncio.run(asynchronous(options()))
