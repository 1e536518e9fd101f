"""What holds for every test of tasks: an empty registry, no format keyword, no setting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_exporters.tasks import BaseTask, BigraysConfig
from resilient_exporters.tasks.registry import TASK_REGISTER, Registry


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    for name in [name for name in os.environ if name.startswith(("BIGRAYS_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(BaseTask, "format_kws", {})
    BigraysConfig.reset()
    with TASK_REGISTER.isolated() as found:
        yield found
    BigraysConfig.reset()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """An empty SQLite database that SQL tasks use; they give rows, whether pandas is installed or not."""
    path = tmp_path / "data.db"
    BigraysConfig.DB_URL = f"sqlite:///{path}"
    BigraysConfig.RESULTS = "rows"
    return path
