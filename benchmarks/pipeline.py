"""From JSON lines to packed JSON lines with a filter and a transform: a pipeline beside a loop written by hand."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Figures, column
from benchmarks.material import readings

_BENTHOS = """
input:
  batched:
    child: {{file: {{paths: [{source}], scanner: {{lines: {{}}}}}}}}
    policy: {{count: 10000}}
pipeline:
  threads: {threads}
  processors:
    - mapping: 'root = if this.n % 2 != 0 {{ deleted() }} else {{ this.merge({{"tenfold": this.n * 10}}) }}'
    - archive: {{format: lines}}
    - mapping: 'root = content() + "\\n".bytes()'
    - compress: {{algorithm: gzip, level: 6}}
output:
  file: {{path: {target}, codec: append}}
http: {{enabled: false}}
logger: {{level: ERROR}}
"""
LOOP = "loop with json and gzip"


def run(bench: Bench) -> None:
    count = bench.size(100_000, 2_000)
    for level in (9, 6):
        given = {"count": count, "level": level}
        cases: dict[str, tuple[Callable[..., Figures], dict[str, Any]]]
        cases = {f"pipeline, {level}": (pipeline, {"count": count}), f"{LOOP}, {level}": (loop, given)}
        found = bench.measure(cases, repeats=3)
        ours, beside = found[f"pipeline, {level}"], found[f"{LOOP}, {level}"]
        goal = {"least": 0.7, "of": "ratio"} if level == 6 else {}
        name = f"{LOOP}, level {level}"
        bench.row("records", column(ours, "records/s"), "1/s", beside=(name, column(beside, "records/s")), **goal)  # type: ignore[arg-type] # a goal or none
        bench.row("bytes read", column(ours, "MB/s"), "MB/s", beside=(name, column(beside, "MB/s")))
        each = (name, column(beside, "records/CPU s"))
        bench.row("records for a second of CPU", column(ours, "records/CPU s"), "1/s", beside=each)
    _beside_benthos(bench, count)
    found = bench.measure({"threaded": (pipeline, {"count": count, "threaded": True})}, repeats=3)
    bench.row("records, threaded", column(found["threaded"], "records/s"), "1/s")
    for packed in (True, False):
        options: dict[str, Any] = {"count": count, "packed": packed}
        found = bench.measure({"reader": (reader, options), "loop": (reading_loop, options)}, repeats=3)
        what = "gzip JSON lines" if packed else "JSON lines"
        hand = ("loop with json and gzip" if packed else "loop with json", column(found["loop"], "records/s"))
        bench.row(f"FSReader alone, {what}", column(found["reader"], "records/s"), "1/s", beside=hand)
    bench.note("read, filtered (half passes), one key added, packed, synced; the pipeline commits every 10,000 records")


def _beside_benthos(bench: Bench, count: int) -> None:
    """Beside Benthos, where there is one: it keeps no position, and a killed run of it begins anew."""
    if bench.smoke or shutil.which("benthos") is None:
        bench.note("no benthos in $PATH, or a smoke run: not compared")
        return
    theirs_given: dict[str, Any] = {"count": count, "threads": 1}
    found = bench.measure({"ours": (pipeline, {"count": count}), "theirs": (benthos, theirs_given)}, repeats=3)
    theirs = ("Benthos, one thread", column(found["theirs"], "records/s"))
    bench.row("records, with its start", column(found["ours"], "records/s"), "1/s", beside=theirs)
    theirs = ("Benthos, one thread", column(found["theirs"], "records/CPU s"))
    bench.row("records for a second of CPU", column(found["ours"], "records/CPU s"), "1/s", beside=theirs)


def passes(record: dict[str, Any]) -> bool:
    return int(record["n"]) % 2 == 0


def changed(record: dict[str, Any]) -> dict[str, Any]:
    record["tenfold"] = record["n"] * 10
    return record


# In a process of their own:


def pipeline(directory: str, count: int, threaded: bool = False) -> Figures:
    from resilient_exporters.pipeline import Pipeline
    from resilient_exporters.pipeline.persistence import SqlitePersistence
    from resilient_exporters.pipeline.readers import FSReader
    from resilient_exporters.pipeline.writers import FSWriter

    source = _material(directory, count)
    begun = _now()
    report = Pipeline(
        FSReader(input={"dir": str(source.parent), "pattern": r"\.jl$"}),
        passes,
        changed,
        writer=FSWriter(filebase=f"{directory}/out_"),
        persistence=SqlitePersistence(database=f"{directory}/jobs.db"),
        work_dir=f"{directory}/work",
        threaded=threaded,
        progress=False,
    ).run()
    figures = _figures(source, count, begun)
    assert report.written == _written(Path(directory, "out_0000.jl.gz")) == count / 2
    return figures


def loop(directory: str, count: int, level: int) -> Figures:
    source, target = _material(directory, count), Path(directory, "out.jl.gz")
    begun = _now()
    with source.open() as lines, gzip.open(target, "wt", compresslevel=level) as out:
        for line in lines:
            record = json.loads(line)
            if passes(record):
                out.write(json.dumps(changed(record)) + "\n")
    with target.open("rb") as file:
        os.fsync(file.fileno())
    figures = _figures(source, count, begun)
    assert _written(target) == count / 2
    return figures


def benthos(directory: str, count: int, threads: int) -> Figures:
    source, target = _material(directory, count), Path(directory, "out.jl.gz")
    config = Path(directory, "benthos.yaml")
    config.write_text(_BENTHOS.format(source=source, target=target, threads=threads))
    begun = _now()
    subprocess.run(["benthos", "-c", str(config)], check=True, capture_output=True, timeout=600)
    figures = _figures(source, count, begun)
    assert _written(target) == count / 2
    return figures


def reader(directory: str, count: int, packed: bool) -> Figures:
    from resilient_exporters.pipeline.readers import FSReader

    source = _packed(_material(directory, count)) if packed else _material(directory, count)
    begun, number = _now(), 0
    reading = FSReader(input=str(source))
    while not reading.is_finished():
        for _ in reading.get_next_batch():
            number += 1
    assert number == count
    return _figures(source.with_suffix("") if packed else source, count, begun)


def reading_loop(directory: str, count: int, packed: bool) -> Figures:
    source = _packed(_material(directory, count)) if packed else _material(directory, count)
    begun, number = _now(), 0
    with gzip.open(source) if packed else source.open("rb") as lines:
        for line in lines:
            json.loads(line)
            number += 1
    assert number == count
    return _figures(source.with_suffix("") if packed else source, count, begun)


def _packed(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 6))
    return packed


def _material(directory: str, count: int) -> Path:
    path = Path(directory, "in", "readings.jl")
    path.parent.mkdir()
    with path.open("w") as file:
        for number, record in enumerate(readings(count)):
            file.write(json.dumps({"n": number, **record}) + "\n")
    return path


def _now() -> tuple[float, float]:
    """Of the wall's clock, and of the CPU in all threads and ended children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime


def _figures(source: Path, count: int, begun: tuple[float, float]) -> Figures:
    seconds, cpu = (after - before for after, before in zip(_now(), begun, strict=True))
    return {
        "records/s": count / seconds, "MB/s": source.stat().st_size / 1e6 / seconds, "records/CPU s": count / cpu,
    }  # fmt: skip


def _written(path: Path) -> int:
    with gzip.open(path, "rt") as lines:
        return sum(1 for _ in lines)
