"""S3Client and SNSClient: clients of boto3."""

from __future__ import annotations

from typing import Any, ClassVar

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.tasks.config import flag, setting
from resilient_exporters.tasks.resource import BaseResource

__all__ = ["AWSClient", "S3Client", "SNSClient"]


class AWSClient(BaseResource):
    """A boto3 client."""

    client_name: ClassVar[str]
    needs_region: ClassVar[bool] = False

    @classmethod
    def missing_configs(cls, config: Any) -> list[str]:
        """Keys, unless ``AWS_REQUIRE_SECRETS`` is false; and the region where there is no default."""
        names = ["AWS_REGION"] if cls.needs_region else []
        if flag(config, "AWS_REQUIRE_SECRETS"):
            names = ["S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY", *names]
        return [name for name in names if setting(config, name) is None]

    @classmethod
    def check(cls, config: Any) -> None:
        """Besides: that boto3 is installed."""
        super().check(config)
        try:
            import boto3  # noqa: F401 - only asked for
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"{cls.__name__} needs boto3: pip install 'resilient-exporters[aws]'"
            ) from error

    @classmethod
    def _open(cls, config: Any) -> Any:
        import boto3

        given = {
            "aws_access_key_id": setting(config, "AWS_ACCESS_KEY_ID"),
            "aws_secret_access_key": setting(config, "AWS_SECRET_ACCESS_KEY"),
            "aws_session_token": setting(config, "AWS_SESSION_TOKEN"),
            "region_name": setting(config, "AWS_REGION"),
            "endpoint_url": setting(config, "AWS_ENDPOINT_URL"),
        }
        return boto3.client(cls.client_name, **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def _close(cls, *exc: Any) -> bool:  # noqa: ARG003 - the exception is raised as it is
        cls.resource().close()
        return False


class S3Client(AWSClient):
    """A boto3 client of S3."""

    client_name = "s3"


class SNSClient(AWSClient):
    """A boto3 client of SNS."""

    client_name = "sns"
    needs_region = True
