"""Write buffers as users of the old system wrote them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import BaseRecord, BasicExporter, Pipeline
from resilient_exporters.pipeline.groupers import FileKeyGrouper
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.pipeline.writers import FSWriter
from resilient_exporters.pipeline.writers.write_buffer import WriteBuffer


class EveryOther(WriteBuffer):
    """Keeps one record of two, in files of three; the constructor has the old arguments."""

    supported_options = {"first": {"type": int, "default": 0}}

    def __init__(self, options: Any, metadata: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(options, metadata, *args, **kwargs)
        self.seen = self.read_option("first")

    def buffer(self, item: Any) -> None:
        self.seen += 1
        if self.seen % 2:
            super().buffer(BaseRecord({**item, "kept": True}))

    def should_write_buffer(self, key: Any) -> bool:
        return bool(self.grouping_info[key]["buffered_items"] >= 3)

    def get_state(self) -> Any:
        return self.seen

    def set_state(self, state: Any) -> None:
        self.seen = state


class OneFile(WriteBuffer):
    """Whatever the grouper says."""

    def get_key_from_item(self, item: Any) -> Any:
        return ()


def rows(folder: Path) -> dict[str, list[int]]:
    return {
        path.name: [json.loads(line)["n"] for line in gzip.decompress(path.read_bytes()).splitlines()]
        for path in sorted(folder.iterdir())
    }


def test_a_buffer_says_what_is_kept_and_when_it_is_written(tmp_path: Path) -> None:
    options = {"write_buffer": f"{__name__}.EveryOther", "write_buffer_options": {"first": 1}}
    BasicExporter(
        {
            "reader": {"name": "RandomReader", "options": {"number_of_items": 4}},
            "writer": {"name": "FSWriter", "options": {"filebase": f"{tmp_path}/out/x_", **options}},
        }
    ).export()
    (path,) = (tmp_path / "out").iterdir()
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [line["key"] for line in lines] == [1, 3]
    assert all(line["kept"] for line in lines)


def test_its_state_is_resumed(tmp_path: Path) -> None:
    def pipeline(resume: str | None, fail: bool) -> Pipeline:
        def source() -> Any:
            for n in range(20):
                if fail and n == 10:
                    raise OSError("the source went away")
                yield {"n": n}

        writer = FSWriter(filebase=f"{tmp_path}/out/x_", write_buffer=f"{__name__}.EveryOther")
        return Pipeline(IterableReader(source(), batch_size=3), writer=writer, resume=resume)

    first = pipeline(None, fail=True)
    with pytest.raises(OSError, match="went away"):
        first.run()
    pipeline(first.persistence.job, fail=False).run()
    assert rows(tmp_path / "out") == {
        "x_0000.jl.gz": [0, 2, 4], "x_0001.jl.gz": [6, 8, 10], "x_0002.jl.gz": [12, 14, 16], "x_0003.jl.gz": [18],
    }  # fmt: skip


def test_a_buffer_says_what_one_file_is(tmp_path: Path) -> None:
    writer = FSWriter(filebase=f"{tmp_path}/out/x_", write_buffer=f"{__name__}.OneFile")
    Pipeline(({"n": n} for n in range(4)), FileKeyGrouper(keys=["n"]), writer=writer).run()
    assert rows(tmp_path / "out") == {"x_0000.jl.gz": [0, 1, 2, 3]}
