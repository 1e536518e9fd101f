"""The task document's job, end to end: a database given by its URL, S3 and SNS by moto."""

from __future__ import annotations

import datetime as dt
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import sqlalchemy as sa
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.sns.models import sns_backends

from resilient_exporters import compat
from resilient_exporters.tasks import BaseTask, BigraysConfig
from resilient_exporters.tasks.registry import TASK_REGISTER

SCRIPT = Path(__file__).with_name("predictions.py")
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


@contextmanager
def old_names() -> Iterator[None]:
    """Within it ``bigrays`` can be imported; no task, keyword or setting of a job is left afterwards."""
    keywords = dict(BaseTask.format_kws)
    BigraysConfig.reset()
    compat.install("bigrays")
    try:
        with TASK_REGISTER.isolated():
            yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "bigrays"]:
            del sys.modules[name]
        BaseTask.format_kws.clear()
        BaseTask.format_kws.update(keywords)
        BigraysConfig.reset()


def prepare(url: str) -> None:
    """Training data on the line 3 x + 1 within the last days, far from it before; and what to predict from."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    today = dt.date.today()
    date = "date" if engine.dialect.name == "postgresql" else "text"
    with engine.begin() as connection:
        connection.execute(sa.text(f"create table my_training_data (date {date}, x integer, target double precision)"))
        connection.execute(sa.text("create table my_production_data (x integer)"))
        training = [(today - dt.timedelta(days=n), n, 3.0 * n + 1) for n in range(50)]
        training += [(today - dt.timedelta(days=n), n, -1000.0) for n in range(70, 100)]
        insert = "insert into my_training_data values ({})"
        for day, x, target in training:
            given = f"'{day}', {x}, {target}"
            connection.execute(sa.text(insert.format(given)))
        connection.execute(sa.text("insert into my_production_data values (10), (20)"))
    engine.dispose()


def run_the_document(url: str) -> None:
    """Run it, and look at what is in the bucket and what was published."""
    prepare(url)
    with old_names(), mock_aws():
        made: dict[str, Any] = {name: boto3.client(name, **KEYS) for name in ("s3", "sns")}
        made["s3"].create_bucket(Bucket="my-bucket")
        arn = made["sns"].create_topic(Name="s3-email-topic")["TopicArn"]
        BigraysConfig.DB_DSN = url
        BigraysConfig.S3_ACCESS_KEY_ID = BigraysConfig.S3_SECRET_ACCESS_KEY = "test"
        BigraysConfig.AWS_REGION = "us-east-1"

        runpy.run_path(str(SCRIPT), run_name="__main__")

        today, begin = dt.date.today(), dt.date.today() - dt.timedelta(days=60)
        body = made["s3"].get_object(Bucket="my-bucket", Key=f"{begin}-{today}.csv/predictions.csv")["Body"]
        with body:
            predictions = pd.read_csv(body)
        assert list(predictions.columns) == ["x", "prediction"]
        assert predictions["prediction"].round(6).tolist() == [31.0, 61.0]
        (published,) = sns_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].topics[arn].sent_notifications
        assert published[1:3] == ("Predictions are upload to s3", "Predictions are finished")
        for client in made.values():
            client.close()
