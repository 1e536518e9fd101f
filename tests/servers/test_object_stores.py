"""Files in stores of objects that speak like Azure's and Google's. S3: see tests/unit/pipeline."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from typing import Any

from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.writers import AzureBlobWriter
from tests.servers.provision import HOST, Instance
from tests.servers.provision.stores import ACCOUNT, KEY, Azurite, without_grpc

GCS = """
import gzip, json, sys
import fsspec
from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.writers import GStorageWriter

options = {"token": "anon", "endpoint_url": sys.argv[1]}
writer = GStorageWriter(
    filebase="day/x_", project="any", bucket="readings", items_per_buffer_write=10, check_consistency=True,
    generate_md5=True, storage_options=options,
)
Pipeline([{"n": n} for n in range(25)], writer=writer, disable_retries=True).run()
store = fsspec.filesystem("gs", **options)
found = {name: store.cat_file(name) for name in store.find("readings")}
print(json.dumps({
    name: len(gzip.decompress(data).splitlines()) for name, data in found.items() if name.endswith(".gz")
} | {"others": [name for name in found if not name.endswith(".gz")]}))
"""


def test_blobs_of_azure(azurite: Instance) -> None:
    # Given: a container that is not there yet
    connection = Azurite().connection(azurite)
    options: dict[str, Any] = {
        "container": "readings", "account_name": ACCOUNT, "account_key": KEY, "items_per_buffer_write": 10,
        "check_consistency": True, "generate_md5": True, "storage_options": {"connection_string": connection},
    }  # fmt: skip
    # When: files have names of their own, and names after `filebase`
    random = Pipeline([{"n": n} for n in range(25)], writer=AzureBlobWriter(**options), disable_retries=True).run()
    Pipeline([{"n": 1}], writer=AzureBlobWriter(**options, filebase="day/x_"), disable_retries=True).run()
    # Then
    import adlfs

    store = adlfs.AzureBlobFileSystem(connection_string=connection, skip_instance_cache=True)
    found = {name: store.cat_file(name) for name in store.find("readings")}
    names = [one["filename"].removeprefix("abfs://") for one in random.figures["writer"]["files_written"]]
    assert [name.partition("-")[2] for name in names] == [f"000{number}.jl.gz" for number in range(3)]
    lines = [json.loads(line)["n"] for name in names for line in gzip.decompress(found[name]).splitlines()]
    assert lines == list(range(25))
    assert set(found) - set(names) == {
        "readings/md5checksum.md5", "readings/day/x_0000.jl.gz", "readings/day/md5checksum.md5",
    }  # fmt: skip


def test_a_bucket_of_google(gcs: Instance) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GCS, f"http://{HOST}:{gcs.port}"], env=without_grpc(), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "readings/day/x_0000.jl.gz": 10, "readings/day/x_0001.jl.gz": 10, "readings/day/x_0002.jl.gz": 5,
        "others": ["readings/day/md5checksum.md5"],
    }  # fmt: skip
