"""Writers: where the records of a pipeline go."""

from __future__ import annotations

from resilient_exporters.pipeline.writers.aggregation import AggregationStatsWriter
from resilient_exporters.pipeline.writers.azure_writers import AzureBlobWriter, AzureFileWriter
from resilient_exporters.pipeline.writers.base import BaseWriter
from resilient_exporters.pipeline.writers.buffered import BaseBufferedWriter
from resilient_exporters.pipeline.writers.console import ConsoleWriter
from resilient_exporters.pipeline.writers.dropbox_writer import DropboxWriter
from resilient_exporters.pipeline.writers.exporter_writer import ExporterWriter
from resilient_exporters.pipeline.writers.filebase import BaseFilebaseWriter
from resilient_exporters.pipeline.writers.fs_writer import FSWriter
from resilient_exporters.pipeline.writers.ftp_writer import FTPWriter
from resilient_exporters.pipeline.writers.gdrive_writer import GDriveWriter
from resilient_exporters.pipeline.writers.gstorage_writer import GStorageWriter
from resilient_exporters.pipeline.writers.http import HTTPWriter
from resilient_exporters.pipeline.writers.hubstorage import HubstorageReduceWriter, HubstorageWriter
from resilient_exporters.pipeline.writers.mail import MailWriter
from resilient_exporters.pipeline.writers.object_store import ObjectStoreWriter
from resilient_exporters.pipeline.writers.reduce import ReduceWriter
from resilient_exporters.pipeline.writers.s3_writer import S3Writer
from resilient_exporters.pipeline.writers.search import CloudSearchWriter
from resilient_exporters.pipeline.writers.sftp_writer import SFTPWriter
from resilient_exporters.pipeline.writers.sql import OdoWriter, SQLWriter
from resilient_exporters.pipeline.writers.store import BaseStoreWriter

__all__ = [
    "AggregationStatsWriter",
    "AzureBlobWriter",
    "AzureFileWriter",
    "BaseBufferedWriter",
    "BaseFilebaseWriter",
    "BaseStoreWriter",
    "BaseWriter",
    "CloudSearchWriter",
    "ConsoleWriter",
    "DropboxWriter",
    "ExporterWriter",
    "FSWriter",
    "FTPWriter",
    "GDriveWriter",
    "GStorageWriter",
    "HTTPWriter",
    "HubstorageReduceWriter",
    "HubstorageWriter",
    "MailWriter",
    "ObjectStoreWriter",
    "OdoWriter",
    "ReduceWriter",
    "S3Writer",
    "SFTPWriter",
    "SQLWriter",
]
