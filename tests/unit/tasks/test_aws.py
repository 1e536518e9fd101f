"""S3 and SNS tasks against moto, in this process."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pandas as pd
import polars as pl
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.sns.models import sns_backends

from resilient_exporters.tasks import (
    BigraysConfig,
    Rows,
    S3Client,
    S3Task,
    Task,
    TasksFailed,
    ToS3,
    bigrays_run,
    from_s3,
    list_s3_objects,
    sns_publish,
    sns_publish_email,
    to_s3,
    update_format_kws,
)

REGION = "us-east-1"


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, Any]]:
    """One mock and one client of each kind for all tests: boto3 takes long to make them."""
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": REGION}
    with mock_aws():
        made = {name: boto3.client(name, **keys) for name in ("s3", "sns")}
        yield made
        for client in made.values():
            client.close()


@pytest.fixture(autouse=True)
def aws(registry, clients) -> Iterator[None]:
    BigraysConfig.S3_ACCESS_KEY_ID = BigraysConfig.S3_SECRET_ACCESS_KEY = "test"
    BigraysConfig.AWS_REGION = REGION
    yield
    s3_backends.reset()
    sns_backends.reset()


@pytest.fixture
def s3(clients) -> Any:
    clients["s3"].create_bucket(Bucket="bucket")
    return clients["s3"]


@pytest.fixture
def topic(clients) -> str:
    for number in range(120):  # more than a page
        sns_backends[DEFAULT_ACCOUNT_ID][REGION].create_topic(f"other-{number}")
    arn: str = clients["sns"].create_topic(Name="team")["TopicArn"]
    return arn


def sent(arn: str) -> list[tuple[Any, ...]]:
    """Message and subject of each that was published."""
    found = sns_backends[DEFAULT_ACCOUNT_ID][REGION].topics[arn].sent_notifications
    return [(one[1], one[2]) for one in found]


def content(s3: Any, key: str) -> bytes:
    body = s3.get_object(Bucket="bucket", Key=key)["Body"]
    with body:
        found: bytes = body.read()
    return found


class TestUpload:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            ("häuser", "häuser".encode()),
            (b"\x00\xff", b"\x00\xff"),
            (pd.DataFrame({"a": [1, 2], "b": ["x", None]}), b"a,b\n1,x\n2,\n"),
            (pl.DataFrame({"a": [1, 2], "b": ["x", None]}), b"a,b\n1,x\n2,\n"),
            ([{"a": 1, "b": "x"}, {"a": 2}], b"a,b\n1,x\n2,\n"),
            (Rows(["a", "b"], [[1, "x"], [2, None]]), b"a,b\n1,x\n2,\n"),
        ],
        ids=["text", "bytes", "pandas", "polars", "rows", "stream"],
    )
    def test_an_input_becomes_an_object_that_is_encrypted(self, s3, data, expected):
        to_s3(input=data, bucket="bucket", key="k")

        assert content(s3, "k") == expected
        assert s3.head_object(Bucket="bucket", Key="k")["ServerSideEncryption"] == "AES256"

    def test_a_file_is_read_from_its_beginning_and_left_open_for_the_next(self, s3):
        file = io.BytesIO(b"content")
        file.read()
        to_s3(input=file, bucket="bucket", key="one")
        to_s3(input=file, bucket="bucket", key="two")
        assert content(s3, "one") == content(s3, "two") == b"content"
        assert file.read() == b"content"

    def test_a_large_one_goes_in_parts(self, s3):
        large = b"0123456789abcdef" * (20 * 2**16)  # 20 MiB
        to_s3(input=large, bucket="bucket", key="large")
        assert s3.head_object(Bucket="bucket", Key="large")["ETag"].strip('"').endswith("-3")
        assert content(s3, "large") == large

    @pytest.mark.parametrize("data", [7, None, object(), io.StringIO("x")], ids=["int", "none", "object", "text file"])
    def test_anything_else_is_a_value_error(self, s3, data):
        with pytest.raises(TasksFailed, match="cannot be uploaded") as caught:
            to_s3(input=data, bucket="bucket", key="k")
        assert isinstance(caught.value.exceptions[0], ValueError)
        assert list_s3_objects(bucket="bucket") == []

    def test_an_object_that_is_there_is_replaced_only_if_that_is_said(self, s3):
        to_s3(input="old", bucket="bucket", key="k")
        with pytest.raises(TasksFailed, match="s3://bucket/k exists; set overwrite_if_exists = True"):
            to_s3(input="new", bucket="bucket", key="k")
        assert content(s3, "k") == b"old"
        to_s3(input="new", bucket="bucket", key="k", overwrite_if_exists=True)
        assert content(s3, "k") == b"new"

    def test_bucket_and_key_are_formatted_and_a_bucket_may_have_a_path(self, s3):
        update_format_kws(day="2026-11-21")
        to_s3(input="x", bucket="bucket/{day}.d", key="{day}.csv")
        assert list_s3_objects(bucket="bucket/{day}.d") == ["2026-11-21.d/2026-11-21.csv"]
        assert from_s3(bucket="bucket", key="{day}.d/{day}.csv").read() == b"x"

    def test_a_bucket_that_is_not_there_is_the_error_of_s3(self, s3):
        with pytest.raises(TasksFailed, match="NoSuchBucket"):
            to_s3(input="x", bucket="nowhere", key="k", overwrite_if_exists=True)

    def test_a_question_that_s3_does_not_answer_is_an_error_and_no_answer(self, s3):
        with Stubber(s3) as stub:
            stub.add_client_error("head_object", "AccessDenied", "no", 403)
            stub.add_client_error("delete_object", "AccessDenied", "no", 403)

            class Mine(S3Task):
                required_resource = None

                def run(self):
                    S3Client._opened.append((threading.get_ident(), s3))
                    try:
                        with pytest.raises(ClientError, match="AccessDenied"):
                            self.object_exists("bucket", "k")
                        return self.delete_object("bucket", "k")
                    finally:
                        S3Client._opened.clear()

            bigrays_run(Mine)
        assert Mine.output is False


class TestDownload:
    def test_it_is_a_file_at_its_beginning(self, s3):
        to_s3(input="content", bucket="bucket", key="k")
        assert from_s3(bucket="bucket", key="k").getvalue() == b"content"
        with from_s3(bucket="bucket", key="k", stream=True) as file:
            assert not isinstance(file, io.BytesIO)
            assert file.read() == b"content"

    def test_it_can_be_uploaded_again(self, s3):
        class Get(Task):
            def run(self):
                return io.BytesIO(b"content")

        class Put(ToS3):
            input, bucket, key = Get.output, "bucket", "k"

        class Again(Put):
            key = "l"

        bigrays_run(Get, Put, Again)
        assert content(s3, "k") == content(s3, "l") == b"content"

    def test_one_that_is_not_there_is_named(self, s3):
        with pytest.raises(TasksFailed, match="TaskError: there is no s3://bucket/k"):
            from_s3(bucket="bucket", key="k")


class TestList:
    def test_nothing_is_an_empty_list(self, s3):
        assert list_s3_objects(bucket="bucket") == []
        assert list_s3_objects(bucket="bucket", prefix="x", suffix="y") == []

    def test_all_pages_are_read(self, s3):
        keys = [f"a/{number:04d}.{'csv' if number % 2 else 'txt'}" for number in range(1100)]
        for key in keys:
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("bucket", key, b"")
        s3.put_object(Bucket="bucket", Key="b")

        assert list_s3_objects(bucket="bucket") == [*keys, "b"]
        assert list_s3_objects(bucket="bucket", prefix="a/", suffix=".csv") == keys[1::2]


def test_a_task_of_ones_own_has_the_methods(s3):
    class Mine(S3Task):
        def run(self):
            self.upload("x", "bucket", "k")
            before = self.object_exists("bucket", "k"), self.download("bucket", "k").read()
            return (
                before,
                self.delete_object("bucket", "k"),
                self.object_exists("bucket", "k"),
                self.list_objects("bucket"),
            )

    bigrays_run(Mine)
    assert Mine.output == ((True, b"x"), True, False, [])


def test_a_deletion_that_is_refused_is_false(s3):
    class Mine(S3Task):
        def run(self):
            return self.delete_object("nowhere", "k")

    bigrays_run(Mine)
    assert Mine.output is False


class TestPublish:
    def test_a_mapping_is_sent_as_json_and_anything_else_as_its_text(self, topic):
        sns_publish(input={"a": [1, None]}, topic=topic)
        sns_publish(input=7, topic=topic)
        assert [json.loads(message) for message, _ in sent(topic)] == [{"a": [1, None]}, 7]

    def test_a_mail_has_a_subject_and_a_topic_may_be_named(self, topic):
        sns_publish_email(input="done", topic="team", subject="Finished")
        assert sent(topic) == [("done", "Finished")]

    def test_a_topic_that_is_not_there_is_named(self, topic):
        with pytest.raises(TasksFailed, match="there is no topic 'teams' in this account and region"):
            sns_publish(input="x", topic="teams")
