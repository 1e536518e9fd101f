"""A server that speaks S3, in this process."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["ACCOUNT", "s3_server"]

ACCOUNT = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing-secret"}


@contextmanager
def s3_server(*buckets: str) -> Iterator[tuple[str, Any]]:
    """Start a server with these buckets, all empty.

    Yields:
        Its URL, and a client of boto3 to fill it and to look into it.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        # What it keeps is the process's: another one before it may have left something.
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **ACCOUNT)
            try:
                for bucket in buckets:
                    client.create_bucket(Bucket=bucket)
                yield url, client
            finally:
                client.close()
    finally:
        server.stop()
