"""Deserializers: between the bytes of a stream and its records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from resilient_exporters.pipeline.decompressors import base_name
from resilient_exporters.pipeline.deserializers.base import BaseDeserializer, Lot, Unreadable
from resilient_exporters.pipeline.deserializers.binary import AvroDeserializer, MessagePackDeserializer
from resilient_exporters.pipeline.deserializers.lines import (
    BaseLineDeserializer,
    JsonLinesDeserializer,
    LineSplitter,
    TextLinesDeserializer,
)
from resilient_exporters.pipeline.deserializers.rows import CSVDeserializer

__all__ = [
    "AvroDeserializer",
    "BaseDeserializer",
    "BaseLineDeserializer",
    "CSVDeserializer",
    "JsonLinesDeserializer",
    "LineSplitter",
    "Lot",
    "MessagePackDeserializer",
    "TextLinesDeserializer",
    "Unreadable",
    "deserializer_for",
]

_CLASSES: Final[Mapping[str, type[BaseDeserializer]]] = {
    ".csv": CSVDeserializer,
    ".tsv": CSVDeserializer,
    ".msgpack": MessagePackDeserializer,
    ".mpk": MessagePackDeserializer,
    ".avro": AvroDeserializer,
}


def deserializer_for(name: str) -> BaseDeserializer:
    """The one that the ending of a stream's name tells; JSON lines where it tells none.

    Raises:
        MissingModuleError: an optional package is needed, and not installed.
    """
    ending = "." + base_name(name).lower().rpartition(".")[2]
    if ending == ".tsv":
        return CSVDeserializer(delimiter="\t")
    return _CLASSES.get(ending, JsonLinesDeserializer)()
