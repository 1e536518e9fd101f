"""Readers: where the records of a pipeline come from."""

from __future__ import annotations

from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.pipeline.readers.elasticsearch import ElasticsearchReader
from resilient_exporters.pipeline.readers.file_reader import FSReader
from resilient_exporters.pipeline.readers.fsspec_reader import FsspecReader
from resilient_exporters.pipeline.readers.hubstorage import HubstorageReader
from resilient_exporters.pipeline.readers.iterable import IterableReader
from resilient_exporters.pipeline.readers.kafka import BaseKafkaReader, KafkaReader, KafkaScannerReader
from resilient_exporters.pipeline.readers.kafka_sample import KafkaRandomReader
from resilient_exporters.pipeline.readers.mongodb import BaseMongoReader, MongoReader
from resilient_exporters.pipeline.readers.mongodb_changes import MongoChangeStreamReader
from resilient_exporters.pipeline.readers.mqtt import MQTTReader
from resilient_exporters.pipeline.readers.queue import QueueReader
from resilient_exporters.pipeline.readers.random_reader import RandomReader
from resilient_exporters.pipeline.readers.s3_reader import S3Reader
from resilient_exporters.pipeline.readers.sql import SQLReader
from resilient_exporters.pipeline.readers.stdin import StdinReader
from resilient_exporters.pipeline.readers.stream import BaseStreamReader
from resilient_exporters.pipeline.readers.tail import TailReader

__all__ = [
    "BaseKafkaReader",
    "BaseMongoReader",
    "BaseReader",
    "BaseStreamReader",
    "ElasticsearchReader",
    "FSReader",
    "FsspecReader",
    "HubstorageReader",
    "IterableReader",
    "KafkaRandomReader",
    "KafkaReader",
    "KafkaScannerReader",
    "MQTTReader",
    "MongoChangeStreamReader",
    "MongoReader",
    "QueueReader",
    "RandomReader",
    "S3Reader",
    "SQLReader",
    "StdinReader",
    "TailReader",
]
