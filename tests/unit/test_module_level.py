"""The ready pool of the module: made on first use, and not before."""

from __future__ import annotations

from tests.programs import run


def test_nothing_is_made_by_the_import() -> None:
    run("""
        import os, sys, threading
        from pathlib import Path
        before = set(os.listdir(os.path.dirname(os.environ["RESILIENT_EXPORTERS_DIR"])))
        files = set(os.listdir("/proc/self/fd"))
        import resilient_exporters
        assert "pool" not in vars(resilient_exporters)
        assert threading.active_count() == 1
        assert set(os.listdir(os.path.dirname(os.environ["RESILIENT_EXPORTERS_DIR"]))) == before
        assert "/dev/shm" not in Path("/proc/self/maps").read_text()
        assert set(os.listdir("/proc/self/fd")) == files
        for optional in "sqlalchemy pymongo elasticsearch psycopg click rich numpy pandas requests".split():
            assert optional not in sys.modules, optional
    """)


def test_the_import_works_where_nothing_can_be_written() -> None:
    run("""
        import os
        os.chdir("/proc")
        import resilient_exporters
        resilient_exporters.Exporter(name="x")
        resilient_exporters.pool
    """)


def test_the_pool_may_be_asked_for_first() -> None:
    run("""
        from resilient_exporters import pool
        from tests.targets import Target

        target = Target(name="mine")
        pool.add_exporter(target)
        assert pool.send({"metric": 2}).result(60).successful
        assert target.taken == [{"metric": 2}]
        pool.close()
    """)


def test_pool_send_and_add_exporter_belong_together() -> None:
    run("""
        import resilient_exporters
        from tests.targets import Target

        target = Target(name="mine")
        resilient_exporters.add_exporter(target)
        receipt = resilient_exporters.send({"metric": 2})
        assert receipt.result(60).successful
        assert target.taken == [{"metric": 2}]
        assert resilient_exporters.pool.send == resilient_exporters.send
        assert isinstance(resilient_exporters.pool, resilient_exporters.ExporterPool)
        assert list(resilient_exporters.pool) == [target]
        assert len(resilient_exporters.pool) == 1
        from resilient_exporters import pool, send, add_exporter
        assert pool is resilient_exporters.pool
        assert not pool.use_memory
        pool.close()
    """)


def test_threads_that_ask_at_once_get_one_pool() -> None:
    run("""
        import sys, threading
        sys.setswitchinterval(1e-6)
        import resilient_exporters

        barrier, got = threading.Barrier(16), []
        def ask():
            barrier.wait()
            got.append(resilient_exporters.pool)
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(set(map(id, got))) == 1, len(set(map(id, got)))
        assert resilient_exporters.send.__self__ is got[0]
    """)


def test_what_is_not_there_is_an_attribute_error() -> None:
    run("""
        import resilient_exporters
        assert not hasattr(resilient_exporters, "nothing_of_that_name")
        assert "pool" in dir(resilient_exporters)
        assert set(resilient_exporters.__all__) <= set(dir(resilient_exporters))
    """)
