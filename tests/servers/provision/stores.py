"""Stores of objects: Azurite speaks like Azure's blob storage, an emulator like Google Cloud Storage."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.servers.provision.cache import Cache, run
from tests.servers.provision.server import HOST, Instance, Server

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""What Azurite's makers publish as its only account."""


class Azurite(Server):
    """Blobs only, in memory."""

    name = "azurite"
    version = "3.35.0"
    source = "npm"

    def fetch(self, cache: Cache, folder: Path) -> None:
        cache.need("npm", "npm")
        quiet = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts")
        run("npm", "install", *quiet, f"azurite@{self.version}", cwd=folder)

    def command(self, instance: Instance) -> list[object]:
        program = self.home(instance.cache) / "node_modules" / ".bin" / "azurite-blob"
        return [
            program, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent",
            "--blobHost", HOST, "--blobPort", instance.port,
        ]  # fmt: skip

    def connection(self, instance: Instance) -> str:
        """What Azure's libraries take."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint=http://{HOST}:{instance.port}/{ACCOUNT};"
        )


class GoogleStorage(Server):
    """In memory, with one bucket: readings."""

    name = "gcs"
    version = "2026.7.19"
    source = "pip"

    def fetch(self, cache: Cache, folder: Path) -> None:
        cache.pip(folder, f"gcp-storage-emulator=={self.version}")

    def command(self, instance: Instance) -> list[object]:
        program = (
            "import sys; sys.path.append(sys.argv.pop(1)); "
            "from gcp_storage_emulator.__main__ import main; sys.exit(main())"
        )
        return [
            sys.executable, "-c", program, self.home(instance.cache), "start", f"--host={HOST}",
            f"--port={instance.port}", "--in-memory", "--default-bucket=readings",
        ]  # fmt: skip


def without_grpc() -> dict[str, str]:
    """The environment in which gcsfs does not ask the emulator by gRPC, which that does not speak."""
    return {**os.environ, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
