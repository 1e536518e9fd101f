"""How long does ``close`` take with the target away, and what does the next start find?"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from benchmarks.harness import Bench, Figures, column, fresh_directory, remove
from benchmarks.material import Target, readings


def run(bench: Bench) -> None:
    count = bench.size(100_000, 5_000)
    for text, options in (
        ("just sent", {}),
        ("sent a second ago", {"pause": 1.5}),
        ("ring only (loss_window=None)", {"loss_window": None}),
        ("ring of 64 MB, nothing saved yet", {"loss_window": 60.0, "max_memory": "64 MB"}),
    ):
        ended, found = [], []
        for _ in range(1 if bench.smoke else 5):
            directory = fresh_directory()
            try:
                given = {"directory": str(directory), "count": count}
                ended += bench.measure({f"end, {text}": (end, {**given, **options})}, repeats=1)[f"end, {text}"]
                found += bench.measure({f"again, {text}": (again, given)}, repeats=1)[f"again, {text}"]
            finally:
                remove(directory)
        beside = ("write + fdatasync of as much", column(ended, "limit"))
        bench.row(f"{count} wait, {text}: close()", [1000 * one for one in column(ended, "seconds")], "ms",
                  beside=(beside[0], [1000 * one for one in beside[1]]), most=50)  # fmt: skip
        bench.row("  not saved when it began", column(ended, "unsaved"))
        bench.row(
            "  found by the next start",
            column(found, "found"),
            beside=("sent", [float(count)] * len(found)),
            least=count,
        )
        bench.row("  doubled", column(found, "doubled"), most=0)


# In a process of their own:


def end(
    directory: str, count: int, pause: float = 0.0, loss_window: float | None = 1.0, max_memory: str = "16 MB"
) -> Figures:
    material = readings()
    target = Target(
        directory, up=False, on_full="block" if loss_window is not None else "drop_oldest",
        loss_window=loss_window, max_memory="64 MB" if loss_window is None else max_memory,
    )  # fmt: skip
    for at in range(count):
        target.send({**material[at % len(material)], "n": at})
    time.sleep(pause)
    engine = target._open()  # to know what was left to save; there is no public figure for it
    unsaved = target.stats().pending - engine.queue.first_unsaved()
    began = time.perf_counter()
    report = target.close()
    seconds = time.perf_counter() - began
    if report.lost or report.pending != count:
        raise RuntimeError(f"closed with {report}")
    # As many bytes as one save of all would write, raw; at least a page.
    data = b"".join(map(msgspec.msgpack.encode, material))[: max(4096, unsaved * 60)]
    handle = os.open(Path(directory).with_suffix(".limit"), os.O_WRONLY | os.O_CREAT)
    began = time.perf_counter()
    os.write(handle, data)
    os.fdatasync(handle)
    limit = time.perf_counter() - began
    os.close(handle)
    Path(directory).with_suffix(".limit").unlink()
    return {"seconds": seconds, "unsaved": unsaved, "limit": limit}


class _Listing(Target):
    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.seen: list[int] = []

    def export(self, batch: object) -> None:
        self.seen.extend(record.data["n"] for record in batch)  # type: ignore[attr-defined] # a Batch


def again(directory: str, count: int) -> Figures:
    target = _Listing(directory)
    target.flush(60)
    target.close()
    found = len(set(target.seen) & set(range(count)))
    return {"found": found, "doubled": len(target.seen) - found}
