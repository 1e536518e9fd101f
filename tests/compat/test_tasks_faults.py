"""The faults of the old tasks, one by one: each of these tests would fail on their behaviour."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from resilient_exporters import tasks
from resilient_exporters.tasks import BaseTask, BigraysConfig
from resilient_exporters.tasks.registry import TASK_REGISTER, Registry
from tests.compat.etl import KEYS

WITHOUT_PANDAS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "polars", "numpy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    monkeypatch.setattr(BaseTask, "format_kws", {})
    BigraysConfig.reset()
    BigraysConfig.DB_URL = f"sqlite:///{tmp_path}/x.db"
    BigraysConfig.RESULTS = "rows"
    with TASK_REGISTER.isolated() as found:
        yield found
    BigraysConfig.reset()


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_changes_nothing_in_pandas_and_works_with_the_current_one():
    # Old: `pd.set_option('precision', …)` at import, which raises OptionError today, and a patched SQLTable.
    code = """
import pandas as pd, pandas.io.sql
before = pd.get_option("display.precision"), pandas.io.sql.SQLTable._execute_insert
from resilient_exporters import tasks
assert tasks.SQLQuery
assert (pd.get_option("display.precision"), pandas.io.sql.SQLTable._execute_insert) == before
"""
    python(code)


def test_neither_pandas_nor_boto3_nor_sqlalchemy_is_imported_before_it_is_needed():
    # Old: pandas, boto3's botocore and more at import; without them there was nothing.
    code = "import sys; from resilient_exporters import tasks; print([m for m in {} if m in sys.modules])"
    assert python(code.format(("pandas", "polars", "boto3", "botocore", "sqlalchemy", "numpy"))) == "[]\n"


def test_tasks_work_without_pandas(tmp_path: Path):
    # Old: pandas >= 0.25, < 0.26 was required, and only its DataFrames were results.
    code = f"""{WITHOUT_PANDAS}
from resilient_exporters.tasks import BigraysConfig, sql_query, sql_write, to_csv
BigraysConfig.DB_URL = "sqlite:///{tmp_path}/y.db"
sql_write(tablename="t", input=[{{"a": 1, "b": None}}])
found = sql_query(query="select * from t")
to_csv(filename="{tmp_path}/y.csv", input=found)
print(found)
"""
    assert python(code) == "[{'a': 1, 'b': None}]\n"
    assert (tmp_path / "y.csv").read_text() == "a,b\n1,\n"


def test_a_value_cannot_change_a_statement():
    # Old: str.format was the only way in.
    tasks.sql_write(tablename="users", input=[{"name": "Ada"}])
    evil = "x' or '1' = '1"
    tasks.update_format_kws(name=evil)
    with pytest.warns(tasks.FormattedSQLWarning):
        assert tasks.sql_query(query="select * from users where name = '{name}'") == [{"name": "Ada"}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tasks.sql_query(query="select * from users where name = :name", params={"name": evil}) == []


def test_braces_in_a_statement_are_no_error():
    # Old: KeyError '"a"', or ValueError.
    assert tasks.sql_query(query="""select '{"a": {"b": [1]}}' as j""") == [{"j": '{"a": {"b": [1]}}'}]


def test_missing_settings_are_told_with_the_resource_that_needs_them(registry: Registry):
    # Old: all of them in one list, behind the name of whichever resource was looked at last.
    BigraysConfig.reset()

    class Read(tasks.SQLQuery):
        query = "select 1"

    class Upload(tasks.ToS3):
        input = bucket = key = "x"

    class Tell(tasks.SNSPublish):
        input = topic = "x"

    BigraysConfig.AWS_ACCESS_KEY_ID = BigraysConfig.AWS_SECRET_ACCESS_KEY = "x"
    with pytest.raises(tasks.ConfigurationError) as caught:
        tasks.bigrays_run()
    told = {line.split()[0]: line.split(":")[0].split(")")[1].strip() for line in str(caught.value).splitlines()[1:]}
    assert told == {"SQLSession": "DB_URL", "SNSClient": "AWS_REGION"}


def test_functional_calls_are_in_no_list(registry: Registry):
    # Old: each call added a task to the default list, which the next bigrays_run() ran too.
    class Mine(tasks.Task):
        def run(self):
            return None

    for _ in range(3):
        tasks.sql_query(query="select 1 as a")
    assert list(registry) == [Mine]


def test_any_database_by_its_url(tmp_path: Path):
    # Old: ODBC only.
    BigraysConfig.reset()
    BigraysConfig.DB_DSN = f"sqlite:///{tmp_path}/z.db"
    BigraysConfig.RESULTS = "rows"
    assert tasks.sql_query(query="select 1 as a") == [{"a": 1}]


def test_lists_have_all_pages_and_nothing_is_an_empty_list():
    # Old: one page of 1000 keys; KeyError 'Contents' where nothing matched.
    BigraysConfig.S3_ACCESS_KEY_ID = BigraysConfig.S3_SECRET_ACCESS_KEY = "test"
    with mock_aws():
        client = boto3.client("s3", **KEYS)
        client.create_bucket(Bucket="bucket")
        client.close()
        assert tasks.list_s3_objects(bucket="bucket", prefix="x") == []
        for number in range(1001):
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("bucket", str(number), b"")
        assert len(tasks.list_s3_objects(bucket="bucket")) == 1001


def test_required_attributes_of_every_base_are_asked_for():
    # Old: those of direct bases only; a grandchild without them failed in the middle of the run.
    class Middle(tasks.ToS3, abstract=True):
        bucket = "b"

    with pytest.raises(tasks.TaskInterfaceError, match=r"must define the attribute.* input, key"):

        class Upload(Middle):
            pass


def test_a_task_without_a_resource_leaves_the_open_one_open(registry: Registry):
    # Old: it was closed, and with it went temporary tables. The document says: as long as possible.
    class Make(tasks.SQLExecute):
        statement = "create temporary table tmp as select 1 as a"

    class Between(tasks.Task):
        def run(self):
            return None

    class Read(tasks.SQLQuery):
        query = "select a from tmp"

    tasks.bigrays_run()
    assert Read.output == [{"a": 1}]


def test_an_output_that_comes_too_late_is_found_before_anything_runs(registry: Registry):
    # Old: found when the task ran, after those before it had changed what they change.
    class Late(tasks.Task):
        def run(self):
            return 1

    class Change(tasks.SQLExecute):
        statement = "create table changed (a integer)"

    class Early(tasks.ToCSV):
        input, filename = Late.output, "x.csv"

    with pytest.raises(tasks.TaskInterfaceError, match="Late runs later"):
        tasks.bigrays_run(Change, Early, Late)
    assert tasks.sql_query(query="select count(*) as n from sqlite_master") == [{"n": 0}]


def test_a_run_can_be_tried_dry(registry: Registry, capsys: pytest.CaptureFixture[str]):
    # Old: there was none.
    class Change(tasks.SQLExecute):
        statement = "create table changed (a integer)"

    tasks.bigrays_run(dry_run=True)
    assert "create table changed" in capsys.readouterr().out
    assert tasks.sql_query(query="select count(*) as n from sqlite_master") == [{"n": 0}]


def test_an_output_can_be_uploaded_twice():
    # Old: boto3 closed the BytesIO of the first upload, and the second failed.
    BigraysConfig.S3_ACCESS_KEY_ID = BigraysConfig.S3_SECRET_ACCESS_KEY = "test"
    file = io.BytesIO(b"x")
    with mock_aws():
        client = boto3.client("s3", **KEYS)
        client.create_bucket(Bucket="bucket")
        client.close()
        for key in ("a", "b"):
            tasks.to_s3(input=file, bucket="bucket", key=key)
            assert tasks.from_s3(bucket="bucket", key=key).read() == b"x"
