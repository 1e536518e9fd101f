from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

import resilient_exporters

PUBLIC = [
    "Batch",
    "CloseReport",
    "ClosedError",
    "ConnectionError",
    "DataTypeError",
    "DeadLetter",
    "Delivered",
    "ElasticSearchExporter",
    "ElasticsearchExporter",
    "EncodingError",
    "ExportError",
    "ExportResult",
    "Exporter",
    "ExporterPool",
    "FileExporter",
    "FlushReport",
    "Full",
    "Hold",
    "HoldError",
    "InvalidConfigError",
    "Listener",
    "MissingConfigError",
    "MissingModuleError",
    "MongoDBExporter",
    "MySQLExporter",
    "Outcome",
    "PostgreSQLExporter",
    "QueueFullError",
    "QueueLockedError",
    "Receipt",
    "Record",
    "Reject",
    "RejectedError",
    "ResilientExporterException",
    "Retry",
    "RetryPolicy",
    "RetryableError",
    "SQLExporter",
    "SQLServerExporter",
    "Split",
    "Stats",
    "TargetStats",
    "TimeoutError",
    "TransformError",
    "add_exporter",
    "from_url",
    "pool",
    "send",
]

OPTIONAL = [
    "apprise",
    "bson",
    "click",
    "confluent_kafka",
    "elasticsearch",
    "fsspec",
    "isal",
    "jq",
    "numpy",
    "paho",
    "pandas",
    "prometheus_client",
    "psycopg",
    "pymongo",
    "pymysql",
    "rich",
    "sqlalchemy",
    "urllib3",
    "yaml",
    "zstandard",
]

# The hook cannot be removed again, hence a process of its own.
IMPORT = """
    import json, os, sys, threading

    opened, sockets = [], []

    def watch(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            code = str(path).endswith((".py", ".pyc", ".so", ".pth")) or str(path).startswith(("/proc/", "/sys/"))
            if not code or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                opened.append(str(path))
        elif event in ("os.mkdir", "sqlite3.connect"):
            opened.append(f"{event} {arguments[0]}")
        elif event.startswith("socket."):
            sockets.append(event)

    sys.dont_write_bytecode = True
    sys.addaudithook(watch)
    import resilient_exporters

    print(json.dumps({
        "modules": sorted(sys.modules),
        "opened": opened,
        "sockets": sockets,
        "threads": threading.active_count(),
        "tasks": len(os.listdir("/proc/self/task")),
    }))
"""


@pytest.fixture(scope="module")
def imported() -> dict:
    """What `import resilient_exporters` did to a fresh process."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(IMPORT)],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_public_names_are_exactly_these() -> None:
    assert list(resilient_exporters.__all__) == PUBLIC == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    # Given a name that `from resilient_exporters import *` gives
    value = getattr(resilient_exporters, name)

    # Then it says what it is (a union of classes and an instance have the docstring of their class)
    assert value.__doc__ or name == "Outcome"  # an alias of types has no text of its own


def test_dir_shows_the_public_names_and_unknown_ones_are_refused() -> None:
    assert set(PUBLIC) <= set(dir(resilient_exporters))
    with pytest.raises(AttributeError, match="NoSuchExporter"):
        _ = resilient_exporters.NoSuchExporter


def test_import_loads_no_optional_module(imported: dict) -> None:
    assert not set(OPTIONAL) & set(imported["modules"])


def test_import_opens_no_file_and_no_socket_and_starts_no_thread(imported: dict) -> None:
    assert imported["opened"] == []
    assert imported["sockets"] == []
    assert imported["threads"] == imported["tasks"] == 1
