"""The original system's thirty faults (FACTS A.8), row by row: each test fails on what the original does.

Rows 21 to 24, of databases, are in test_original_databases.py: they need servers.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import (
    DataTypeError,
    EncodingError,
    Exporter,
    ExporterPool,
    ExportResult,
    FileExporter,
    InvalidConfigError,
    MissingConfigError,
    MissingModuleError,
    Receipt,
    RejectedError,
    TransformError,
)
from tests.programs import run
from tests.targets import PATIENCE, SOON, FakeClock, Target, balanced, numbers, until


def waits(event: threading.Event, seconds: float | None = None) -> None:
    """Hang until someone lets go, or for ``seconds``."""
    event.wait(seconds)


class OldStyle(Exporter):
    """A subclass as the original's documentation says: it overrides ``send`` and returns an ``ExportResult``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.got: list[Any] = []
        self.up = True

    def send(self, data: Any, **kwargs: Any) -> Any:
        if not self.up:
            return ExportResult(None, False)
        self.got.append((data, kwargs) if kwargs else data)
        return ExportResult(len(self.got), True)


def old(**options: Any) -> Any:
    """Callers get the queueing ``send`` of it, which types cannot tell."""
    return OldStyle(**options)


# -- subclasses in the original's style ----------------------------------------------------------------------------


def test_old_style_subclasses_deliver_by_their_own_send() -> None:
    # Given
    exporter = old()

    # When
    returned, successful = exporter.send({"n": 1}, collection="c")

    # Then
    assert (returned, successful) == (1, True)
    assert exporter.got == [({"n": 1}, {"collection": "c"})]
    assert isinstance(exporter.send({"n": 2}), Receipt)


def test_old_style_subclasses_may_return_a_pair_or_raise() -> None:
    # Given
    answers = iter([OSError("cut"), (None, False), ("id", True)])

    class Pair(Exporter):
        def send(self, data: Any, **kwargs: Any) -> Any:
            answer = next(answers)
            if isinstance(answer, BaseException):
                raise answer
            return answer

    exporter = Pair(retry=0)

    # When / Then
    assert exporter.send({"n": 1}).result(PATIENCE) == ExportResult("id", True)


def test_old_style_subclasses_may_build_on_each_other() -> None:
    # Given
    class Stamped(OldStyle):
        def send(self, data: Any, **kwargs: Any) -> Any:
            return super().send({**data, "stamp": 1}, **kwargs)

    exporter: Any = Stamped()

    # When / Then
    assert exporter.send({"n": 1}).result(PATIENCE).successful
    assert exporter.got == [{"n": 1, "stamp": 1}]


# -- the rows ------------------------------------------------------------------------------------------------------


def test_row_01_the_default_exporter_sends_again_by_itself() -> None:
    # Given
    exporter = old(retry=0.01)
    exporter.up = False
    first = exporter.send({"n": 0})
    assert not first.successful

    # When
    exporter.up = True
    for n in range(1, 6):
        exporter.send({"n": n})

    # Then
    assert first.result(PATIENCE).successful
    assert exporter.flush(PATIENCE).complete
    assert not exporter.has_unsent_data()
    assert exporter.got == numbers(6)


def test_row_02_sending_again_to_a_dead_target_ends() -> None:
    # Given
    exporter = old(retry=3600)
    exporter.up = False
    exporter.send({"n": 0})

    # When
    began = time.monotonic()
    results = exporter.send_unsent_data()

    # Then
    assert time.monotonic() - began < SOON
    assert results == [ExportResult(None, False)]
    assert exporter.has_unsent_data()


def test_row_03_a_backlog_is_no_recursion() -> None:
    # Given
    exporter = old(retry=3600)
    exporter.up = False
    for record in numbers(2000):
        exporter.send(record)
    exporter.flush()

    # When
    exporter.up = True
    exporter.send({"n": 2000})
    assert exporter.flush(PATIENCE).complete

    # Then
    assert exporter.got == numbers(2001)
    assert sys.getrecursionlimit() >= 1000


def test_row_04_send_returns_one_kind_of_thing() -> None:
    # Given
    exporter = old(manual_reexport=False, retry=3600)
    exporter.up = False
    kinds = [type(exporter.send(record)) for record in numbers(3)]

    # When
    exporter.up = True
    exporter.flush(PATIENCE)
    kinds.append(type(exporter.send({"n": 3})))

    # Then
    assert kinds == [Receipt] * 4
    assert all(isinstance(result, ExportResult) for result in exporter.send_unsent_data())
    assert len(exporter.send({"n": 4})) == 2


def test_row_05_the_transform_is_applied_once() -> None:
    # Given
    exporter = old(transform=lambda data: {"m": data["m"] * 2}, retry=3600)
    exporter.up = False
    exporter.send({"m": 1})
    exporter.flush()

    # When
    exporter.up = True
    assert exporter.flush(PATIENCE).complete

    # Then
    assert exporter.got == [{"m": 2}]


def test_row_06_a_pool_sends_again_only_to_the_one_that_missed_it() -> None:
    # Given
    a, b = old(name="a"), old(name="b", retry=3600)
    b.up = False
    pool = ExporterPool([a, b])
    pool.send({"n": 1})
    pool.flush()

    # When
    b.up = True
    pool.send({"n": 2})
    assert pool.flush(PATIENCE).complete

    # Then
    assert a.got == b.got == numbers(2, 1)


def test_row_07_pools_in_pools() -> None:
    # Given
    leaves = [old() for _ in range(4)]
    pool = ExporterPool([ExporterPool(leaves[:2]), ExporterPool(leaves[2:])])

    # When
    receipt = pool.send({"n": 1})

    # Then
    assert len(pool) == 2
    assert len(list(receipt)) == 4
    assert receipt.successful
    assert [leaf.got for leaf in leaves] == [numbers(1, 1)] * 4


def test_row_08_what_an_earlier_process_left_is_found(tmp_path: Path) -> None:
    # Given: the same tmp_file in another process
    run("""
        import sys
        from resilient_exporters import Exporter

        class Down(Exporter):
            def send(self, data, **kwargs):
                return None, False

        exporter = Down(name="x", tmp_file=sys.argv[1], use_memory=False)
        exporter.send({"n": 0}).successful
    """, tmp_path / "unsent")  # fmt: skip

    # When
    exporter = old(name="x", tmp_file=tmp_path / "unsent", use_memory=False)

    # Then
    assert exporter.has_unsent_data() or exporter.got
    exporter.send_unsent_data()
    assert exporter.got == numbers(1)


@pytest.mark.parametrize("error", [OSError("disk"), ValueError("?"), KeyError("k")])
def test_row_09_nothing_is_lost_when_send_raises(error: Exception) -> None:
    # Given: the first of a pool raises
    class Raises(OldStyle):
        def send(self, data: Any, **kwargs: Any) -> Any:
            if not self.up:
                raise error
            return super().send(data, **kwargs)

    a, b = Raises(name="a", retry=3600), old(name="b")
    a.up = False
    pool = ExporterPool([a, b])

    # When
    pool.send({"n": 1})
    pool.flush()

    # Then
    assert b.got == numbers(1, 1)
    assert pool.has_unsent_data()
    a.up = True
    assert pool.flush(PATIENCE).complete
    assert a.got == numbers(1, 1)


@pytest.mark.parametrize("end", ["", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_row_10_a_backlog_in_memory_outlives_the_program(end: str) -> None:
    # Given
    run(f"""
        from resilient_exporters import Exporter

        class Down(Exporter):
            def send(self, data, **kwargs):
                return None, False

        exporter = Down(name="x", use_memory=True)
        for n in range(10):
            exporter.send({{"n": n}})
        {end}
    """, code=-9 if end else 0)  # fmt: skip

    # When
    exporter = old(name="x", use_memory=True)
    assert exporter.flush(PATIENCE).complete

    # Then
    assert exporter.got == numbers(10)


def test_row_11_a_clock_that_stands_still_or_steps_overwrites_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(time, "time", lambda: 0.0)
    exporter = old(retry=3600, use_memory=False)
    exporter.up = False

    # When
    for record in numbers(5):
        exporter.send(record)
    assert exporter.save(PATIENCE)

    # Then
    assert exporter.stats().pending == 5
    exporter.up = True
    assert exporter.flush(PATIENCE).complete
    assert exporter.got == numbers(5)


def test_row_12_the_bound_is_an_option_and_what_goes_is_counted() -> None:
    # Given
    exporter = old(retry=3600, max_records=2, on_full="drop_newest")
    exporter.up = False

    # When
    results = [exporter.send(record) for record in numbers(5)]

    # Then
    assert [result.done() for result in results] == [False, False, True, True, True]
    assert results[2].reason == "overflow"
    assert balanced(exporter).targets["OldStyle"].dropped == {"overflow": 3}


def test_row_13_the_import_writes_nothing(tmp_path: Path) -> None:
    run("""
        import os, sys
        os.chdir(sys.argv[1])
        import resilient_exporters
        resilient_exporters.pool
        assert os.listdir() == []
        os.chdir("/proc")
        import resilient_exporters.exporters
    """, tmp_path)  # fmt: skip


def test_row_14_the_import_needs_no_database_driver() -> None:
    run("""
        import sys
        for name in "psycopg psycopg2 pymongo elasticsearch sqlalchemy orjson requests pymssql click rich".split():
            sys.modules[name] = None  # as if it were not installed
        import resilient_exporters
        from resilient_exporters import FileExporter, ExporterPool
        import resilient_exporters.exporters, resilient_exporters.exceptions, resilient_exporters.delivery
        from resilient_exporters import MissingModuleError, SQLExporter
        try:
            SQLExporter("sqlite:///x.db")
        except MissingModuleError as error:
            assert "sql" in str(error), error
        else:
            raise AssertionError("no MissingModuleError")
    """)
    assert issubclass(MissingModuleError, ModuleNotFoundError)


def test_row_15_not_waiting_for_the_result_does_not_wait() -> None:
    # Given: a member that takes its time
    member = Target(name="slow", timeout=0)
    member.gate.clear()
    pool = ExporterPool([member], num_threads=2, wait_for_result=False, timeout=0)

    # When
    began = time.monotonic()
    receipt = pool.send({"n": 1})
    results = list(receipt)

    # Then
    assert time.monotonic() - began < SOON
    assert results == [ExportResult(None, False)]
    assert pool.has_unsent_data()
    member.gate.set()
    assert receipt.result(PATIENCE).successful


def test_row_16_in_threads_each_failure_is_its_own() -> None:
    # Given
    members = [old(name=f"m{n}", retry=3600) for n in range(6)]
    for member in members[::2]:
        member.up = False
    pool = ExporterPool(members, num_threads=4)

    # When
    receipt = pool.send({"n": 1})

    # Then
    assert [result.successful for result in receipt] == [False, True] * 3
    assert [name for name, target in pool.stats().targets.items() if target.pending] == ["m0", "m2", "m4"]


def test_row_17_a_pool_is_safe_in_threads() -> None:
    # Given
    members = [old(name=f"m{n}") for n in range(20)]
    pool = ExporterPool(members)
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for n in range(200):
                pool.send({"n": n, "thread": thread})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]

    # When
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.flush(PATIENCE).complete

    # Then
    assert errors == []
    assert sum(len(member.got) for member in members) == 16_000


def test_row_18_nobody_else_is_asked_whether_the_target_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: a machine without the internet
    import socket

    def offline(*_: Any, **__: Any) -> Any:
        raise AssertionError("a stranger was asked")

    monkeypatch.setattr(socket, "create_connection", offline)
    monkeypatch.setattr(socket, "getaddrinfo", offline)
    exporter = old(retry=0.01)
    exporter.up = False
    receipt = exporter.send({"n": 0})
    assert not receipt.successful

    # When
    exporter.up = True

    # Then
    assert receipt.result(PATIENCE).successful
    assert exporter.stats().targets["OldStyle"].last_error.startswith("send() says")


def test_row_18_a_test_url_is_asked_only_if_given() -> None:
    # Given: nobody listens there
    exporter = old(retry=3600, test_url="http://127.0.0.1:9/")
    exporter.up = False
    exporter.send({"n": 0})
    exporter.flush()

    # When
    exporter.up = True
    report = exporter.flush()

    # Then
    assert not report.complete
    assert "test_url" in exporter.stats().targets["OldStyle"].last_error


def test_row_19_it_starts_offline() -> None:
    # Given
    class Remote(OldStyle):
        def connect(self) -> None:
            if not self.up:
                raise ConnectionError("no route to host")

    # When
    began = time.monotonic()
    exporter: Any = Remote(retry=3600)
    exporter.up = False
    receipt = exporter.send({"n": 0})

    # Then
    assert time.monotonic() - began < SOON
    assert not receipt.successful
    exporter.up = True
    assert exporter.flush(PATIENCE).complete
    assert exporter.got == numbers(1)


def test_row_20_options_of_the_base_are_not_handed_to_the_driver() -> None:
    # Given: a subclass that takes options of its own and passes the others on
    class Client(OldStyle):
        def __init__(self, target_ip: str, **options: Any) -> None:
            self.client_options = {"host": target_ip}
            super().__init__(**options)

    # When
    exporter: Any = Client("127.0.0.1", transform=lambda data: {**data, "t": 1}, use_memory=False, timeout=5)

    # Then
    assert exporter.client_options == {"host": "127.0.0.1"}
    assert exporter.send({"n": 0}).result(PATIENCE).successful
    assert exporter.got == [{"n": 0, "t": 1}]
    with pytest.raises(InvalidConfigError, match="serverSelectionTimeout"):
        Client("127.0.0.1", serverSelectionTimeout=5)


def test_row_21_a_missing_option_is_said_and_nothing_waits_for_ever_unseen() -> None:
    # Given: no database named, neither here nor there
    class Store(Target):
        def export(self, batch: Any) -> Any:
            if not all(record.options.get("table") for record in batch):
                raise MissingConfigError(self, "no table: give default_table, or table to send")
            return super().export(batch)

    exporter = Store()

    # When
    returned, successful = exporter.send({"n": 0})

    # Then: (returned, successful) in this order, held and told
    assert (returned, successful) == (None, False)
    target = exporter.stats().targets["target"]
    assert target.state == "held"
    assert "no table" in target.last_error


def test_row_23_one_bad_record_does_not_fail_those_after_it_and_a_lost_connection_is_made_again() -> None:
    # Given: a driver that needs a rollback after an error, and whose connection drops
    class Driver(Target):
        broken = False

        def connect(self) -> None:
            super().connect()
            self.broken = False

        def export(self, batch: Any) -> Any:
            if self.broken:
                raise ConnectionError("current transaction is aborted")
            if any(record.data == {"n": 3} for record in batch):
                self.broken = True
                raise ValueError("invalid input syntax")
            return super().export(batch)

    exporter = Driver()

    # When
    for record in numbers(8):
        exporter.send(record)
    exporter.send({"n": 8})
    while not exporter.flush(PATIENCE).complete:
        pass

    # Then
    assert [record["n"] for record in exporter.taken] == [0, 1, 2, 4, 5, 6, 7, 8]
    assert [letter.data for letter in exporter.dead_letters()] == [{"n": 3}]


def test_row_23_the_callers_record_is_not_changed() -> None:
    # Given: a target that changes what it is given
    class Changes(OldStyle):
        def send(self, data: Any, **kwargs: Any) -> Any:
            data["flag"] = str(data["flag"]).lower()
            return super().send(data, **kwargs)

    exporter: Any = Changes()
    record = {"flag": True}

    # When
    assert exporter.send(record).result(PATIENCE).successful

    # Then
    assert record == {"flag": True}


def test_row_23_values_are_bound_never_put_into_the_statement(tmp_path: Path) -> None:
    # Given
    pytest.importorskip("sqlalchemy")
    import sqlite3

    from resilient_exporters import SQLExporter

    exporter = SQLExporter(f"sqlite:///{tmp_path / 'x.db'}", table="readings", create_table=True)
    names = ["O'Brien", "x',1); drop table victim;--", "Nonesuch", "None", '"; --']

    # When
    for name in names:
        exporter.send({"name": name, "flag": True})
    assert exporter.flush(PATIENCE).complete
    exporter.close()

    # Then
    with sqlite3.connect(tmp_path / "x.db") as database:
        found = [name for (name,) in database.execute("SELECT name FROM readings ORDER BY rowid")]
    database.close()
    assert found == names


def test_row_25_existing_lines_count(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "x.txt"
    path.write_text("old\n" * 5)
    exporter = FileExporter(str(path), max_lines=5)

    # When
    receipt = exporter.send("new")

    # Then: refused, counted, and not waiting for ever
    assert receipt.result(PATIENCE).successful is False
    assert path.read_text() == "old\n" * 5
    assert not exporter.has_unsent_data()
    assert exporter.stats().targets[exporter.name].dropped == {"full": 1}


def test_row_25_others_see_the_file_at_once_in_a_folder_that_was_not_there(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "not" / "there" / "x.txt"
    exporter = FileExporter(str(path))

    # When
    exporter.send({"n": 1}).result(PATIENCE)

    # Then
    assert path.read_text() == '{"n":1}\n'


def test_row_25_types_beyond_json_and_text_of_several_lines(tmp_path: Path) -> None:
    # Given
    from decimal import Decimal

    path = tmp_path / "x.txt"
    exporter = FileExporter(str(path), max_lines=4)

    # When
    for record in ({"d": Decimal("1.10"), 7: {1}}, "one\ntwo"):
        assert exporter.send(record).result(PATIENCE).successful
    exporter.send("last").result(PATIENCE)

    # Then: what is a line and what counts as one agree
    lines = path.read_text().splitlines()
    assert len(lines) + exporter.remaining_lines == 4
    assert "1.10" in lines[0]


def test_row_25_a_constructor_that_fails_makes_no_noise() -> None:
    out = run("""
        from resilient_exporters import FileExporter, InvalidConfigError
        import gc
        try:
            FileExporter("x.txt", max_lines=-1)
        except InvalidConfigError:
            pass
        gc.collect()
    """)
    assert out == ""


def test_row_26_a_data_type_error_keeps_its_text() -> None:
    assert str(DataTypeError(message="a text where a number belongs")) == "a text where a number belongs"
    assert "column x" in str(DataTypeError(Target(name="t"), "column x"))


def test_row_27_a_transform_that_fails_is_said_and_text_may_be_transformed() -> None:
    # Given
    with pytest.raises(TransformError):
        old(transform=lambda _: None).send({"n": 0})

    # When / Then
    exporter = old(transform=str.upper)
    assert exporter.send("text").result(PATIENCE).successful
    assert exporter.got == ["TEXT"]


def test_row_28_a_member_that_was_added_shares_the_queue() -> None:
    # Given
    pool = ExporterPool([], save_unsent_data=True)
    member = old(name="added", retry=3600)
    member.up = False
    pool.add_exporter(member)

    # When
    pool.send({"n": 1})
    pool.flush()

    # Then
    assert pool.has_unsent_data()
    assert not member.has_unsent_data()
    member.up = True
    assert pool.flush(PATIENCE).complete
    assert member.got == numbers(1, 1)


def test_row_28_save_unsent_data_false_drops_and_counts() -> None:
    # Given
    member = old(name="m", retry=3600)
    member.up = False
    pool = ExporterPool([member], save_unsent_data=False)

    # When
    pool.send({"n": 1})
    pool.close(0)

    # Then
    assert pool.stats().targets["m"].dropped == {"unsaved": 1}


def test_row_29_the_first_example_runs(tmp_path: Path) -> None:
    # Given
    exporter = FileExporter(target_file=str(tmp_path / "mydata.txt"), max_lines=3, keep_new_data=True)

    # When
    exporter.send(["value1", "value2"])
    exporter.send(["value3", "value4"])
    assert exporter.flush(PATIENCE).complete

    # Then: full, and the oldest made room
    assert (tmp_path / "mydata.txt").read_text() == "value2\nvalue3\nvalue4\n"


def test_row_30_the_timeout_is_kept() -> None:
    # Given
    stuck = threading.Event()
    exporter = Target(lambda _: waits(stuck), timeout=0.05, retry=3600)

    # When
    began = time.monotonic()
    successful = exporter.send({"n": 0}).successful

    # Then
    assert not successful
    assert time.monotonic() - began < SOON
    stuck.set()


def test_row_30_waits_grow_and_poison_is_not_tried_for_ever() -> None:
    # Given
    clock = FakeClock()
    exporter = Target(ConnectionError("down"), retry=None, max_age=10**6, clock=clock)
    tuple(exporter.send({"n": 0}))
    exporter.entered()

    # When: two hours without the target, minute by minute, each of which ends when the attempt that is due is made
    [target] = exporter._open().targets
    for _ in range(120):
        clock.advance(60)
        until(exporter, lambda stats: stats.targets["target"].state == "open" and target.breaker.until > clock.now())

    # Then: waits up to five minutes, with full jitter: some attempts, not thousands
    assert 5 < len(exporter.batches) < 121

    # When
    poisoned = Target(RejectedError("for good"), name="poisoned")
    poisoned.send({"n": 0}).result(PATIENCE)

    # Then
    assert len(poisoned.batches) == 1
    assert [letter.data for letter in poisoned.dead_letters()] == numbers(1)


def test_none_lists_and_sets_are_answered_at_once() -> None:
    exporter = old()
    for data in (None, {1, 2}, [], [None]):
        with pytest.raises((EncodingError, ValueError)):
            exporter.send(data)
    assert os.environ["RESILIENT_EXPORTERS_DIR"]
