"""The resources that there are, and what manages them."""

from __future__ import annotations

from resilient_exporters.tasks.aws_client import S3Client, SNSClient
from resilient_exporters.tasks.resource import BaseResource
from resilient_exporters.tasks.resource_manager import ResourceManager
from resilient_exporters.tasks.sql_session import SQLSession

__all__ = ["BaseResource", "ResourceManager", "S3Client", "SNSClient", "SQLSession"]
