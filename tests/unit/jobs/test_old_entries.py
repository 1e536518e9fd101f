from __future__ import annotations

import collections
import pickle
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.jobs import Backlog, CorruptEntryError, import_old_entries
from resilient_exporters.jobs.old_entries import parse_pickle

# What Python 2 wrote for {'date': datetime.date(2015, 6, 19), 'site': u'K\xf6ln', 'n': 5L, 'when': datetime(…)}
PYTHON_2 = (
    b"(dp0\nS'date'\np1\ncdatetime\ndate\np2\n(S'\\x07\\xdf\\x06\\x13'\np3\ntp4\nRp5\nsS'site'\np6\nVK\xf6ln\np7\n"
    b"sS'n'\np8\nL5L\nsS'tags'\np9\n(lp10\nS'caf\\xc3\\xa9'\np11\nas."
)


@pytest.fixture
def backlog(tmp_path: Path) -> Backlog:
    return Backlog("nightly", tmp_path)


def test_old_entries_are_imported_when_asked_to(backlog: Backlog) -> None:
    # Given
    (backlog.directory / "150619170736.blog").write_bytes(PYTHON_2)
    (backlog.directory / "260101000000.blog").write_bytes(pickle.dumps({"date": date(2026, 1, 1), "x": {1, 2}}))

    # Then they are no entries by themselves
    assert list(backlog) == []

    # When
    report = import_old_entries(backlog)

    # Then
    assert report.imported == ["150619170736", "260101000000"]
    assert report.refused == {}
    assert backlog["150619170736"] == {"date": date(2015, 6, 19), "site": "Köln", "n": 5, "tags": ["café"]}
    assert backlog["260101000000"] == {"date": date(2026, 1, 1), "x": {1, 2}}
    assert sorted(path.name for path in backlog.directory.glob("*.blog*")) == [
        "150619170736.blog.imported", "260101000000.blog.imported",
    ]  # fmt: skip
    assert import_old_entries(backlog).imported == []


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_would_run_code_runs_none(backlog: Backlog, tmp_path: Path, protocol: int) -> None:
    old = backlog.directory / "260101.blog"
    old.write_bytes(pickle.dumps({"x": Evil(tmp_path / "owned")}, protocol))
    report = import_old_entries(backlog)
    assert report.imported == []
    assert "which is not made from a file" in report.refused[str(old)]
    assert old.exists()
    assert not (tmp_path / "owned").exists()
    assert backlog.is_empty()


@pytest.mark.parametrize(
    "data",
    [b"", b"no pickle", pickle.dumps({})[:-1], b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.",
     b"c__builtin__\ngetattr\n.", b"\x80\x04\x8c\x02os\x8c\x06system\x93.", b"Pelsewhere\n."],
    ids=repr,
)  # fmt: skip
def test_what_is_no_pickle_of_plain_values_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptEntryError):
        parse_pickle(data)


@pytest.mark.parametrize(
    "value",
    [{"a": [1, 2.5, None, True]}, datetime(2026, 1, 1, 2, 3, tzinfo=timezone.utc), timedelta(1, 2, 3), Decimal("1.5"),
     uuid.UUID(int=7), collections.OrderedDict(a=1), frozenset({1}), b"\xff", "ä", 10**30],
    ids=repr,
)  # fmt: skip
def test_plain_values_come_back(value: Any) -> None:
    for protocol in range(3, pickle.HIGHEST_PROTOCOL + 1):
        assert parse_pickle(pickle.dumps(value, protocol)) == value


def test_names_that_cannot_be_and_entries_that_are_there_are_left_alone(backlog: Backlog, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "a b.blog").write_bytes(pickle.dumps({}))
    (old / "1.blog").write_bytes(pickle.dumps({"old": 1}))
    (old / "2.blog").write_bytes(pickle.dumps({"n": 2}))
    backlog["1"] = {"new": 1}
    report = import_old_entries(backlog, old)
    assert report.imported == ["2"]
    assert len(report.refused) == 2
    assert backlog["1"] == {"new": 1}
