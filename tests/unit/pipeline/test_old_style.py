"""Modules as users of the old system wrote them."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_exporters.pipeline import BasicExporter, ConfigCheckError, ExportMetadata
from resilient_exporters.pipeline.filters import BaseFilter
from resilient_exporters.pipeline.readers import BaseReader
from resilient_exporters.pipeline.transforms import BaseTransform
from resilient_exporters.pipeline.writers import BaseWriter

KEPT: list[dict[str, Any]] = []


class MyReader(BaseReader):
    """An old reader: plain dicts as options, lists as batches."""

    supported_options = {"words": {"type": list}, "batch_size": {"type": int, "default": 2, "help": "Records."}}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.words = self.read_option("words")
        self.last_position = 0
        self.logger.info("MyReader has been initiated")

    def get_next_batch(self) -> list[dict[str, Any]]:
        start = self.last_position
        self.last_position = start + self.read_option("batch_size")
        self.finished = self.last_position >= len(self.words)
        self.set_metadata("given", (self.get_metadata("given") or 0) + 1)
        return [{"word": word} for word in self.words[start : self.last_position]]

    def get_last_position(self) -> Any:
        return self.last_position

    def set_last_position(self, last_position: Any) -> None:
        self.last_position = last_position or 0


class LongFilter(BaseFilter):
    supported_options = {"least": {"type": int, "default": 4, "env_fallback": "LEAST"}}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.least = self.read_option("least")

    def filter(self, item: Any) -> Any:
        return len(item["word"]) >= self.least


class Upper(BaseTransform):
    def transform_batch(self, batch: Any) -> Any:
        for item in batch:
            item["word"] = item["word"].upper()
            yield item


class Keeping(BaseWriter):
    def write_batch(self, batch: Any) -> None:
        for item in batch:
            KEPT.append(dict(item))
            self.items_count += 1
        self.set_metadata("items_count", self.items_count)


def test_they_run_from_a_configuration() -> None:
    KEPT.clear()
    report = BasicExporter(
        {
            "reader": {"name": f"{__name__}.MyReader", "options": {"words": ["a", "four", "seven", "no", "eleven"]}},
            "filter": {"name": f"{__name__}.LongFilter"},
            "transform": {"name": f"{__name__}.Upper", "options": {}},
            "writer": {"name": f"{__name__}.Keeping", "options": {}},
        }
    ).export()

    assert KEPT == [{"word": "FOUR"}, {"word": "SEVEN"}, {"word": "ELEVEN"}]
    assert report.figures["reader"] == {"given": 3, "read_items": 5}
    assert report.figures["filter_before"] == {"filtered_out": 2}
    assert report.written == 3


def test_they_are_checked_by_their_tables() -> None:
    with pytest.raises(ConfigCheckError) as caught:
        MyReader({"name": "x", "options": {"word": []}})
    assert caught.value.errors == {
        "MyReader": {"words": "Option words is missing", "unsupported_options": ["word (did you mean words?)"]}
    }


def test_they_stand_alone_with_shared_metadata() -> None:
    """Fault-free since ever: the old documents merge two readers with a filter."""
    metadata = ExportMetadata({"reader": {}})
    readers = [MyReader({"options": {"words": words}}, metadata) for words in (["one", "three"], ["three", "eleven"])]
    long = LongFilter({"options": {}}, metadata)

    found = [item for reader in readers for item in long.filter_batch(reader.get_next_batch())]  # type: ignore[arg-type] # an old reader

    assert [item["word"] for item in found] == ["three", "three", "eleven"]
    assert metadata.to_dict()["reader"] == {"given": 2}
    assert readers[0].get_all_metadata() is readers[1].get_all_metadata()
    assert [reader.is_finished() for reader in readers] == [True, True]
