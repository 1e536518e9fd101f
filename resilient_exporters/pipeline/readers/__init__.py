"""Readers: where the records of a pipeline come from."""

from __future__ import annotations

from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.pipeline.readers.elasticsearch import ElasticsearchReader
from resilient_exporters.pipeline.readers.iterable import IterableReader
from resilient_exporters.pipeline.readers.kafka import BaseKafkaReader, KafkaReader, KafkaScannerReader
from resilient_exporters.pipeline.readers.kafka_sample import KafkaRandomReader
from resilient_exporters.pipeline.readers.mongodb import BaseMongoReader, MongoReader
from resilient_exporters.pipeline.readers.mongodb_changes import MongoChangeStreamReader
from resilient_exporters.pipeline.readers.queue import QueueReader
from resilient_exporters.pipeline.readers.sql import SQLReader

__all__ = [
    "BaseKafkaReader",
    "BaseMongoReader",
    "BaseReader",
    "ElasticsearchReader",
    "IterableReader",
    "KafkaRandomReader",
    "KafkaReader",
    "KafkaScannerReader",
    "MongoChangeStreamReader",
    "MongoReader",
    "QueueReader",
    "SQLReader",
]
