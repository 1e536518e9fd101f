"""Tasks on SNS: SNSPublish, SNSPublishEmail, and SNSTask for your own."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from resilient_exporters.tasks.errors import TaskError
from resilient_exporters.tasks.placeholder import REQUIRED_ATTRIBUTE
from resilient_exporters.tasks.resources import BaseResource, SNSClient
from resilient_exporters.tasks.task import BaseTask

__all__ = ["SNSPublish", "SNSPublishEmail", "SNSTask"]


class SNSTask(BaseTask):
    """A step of your own on SNS: ``run`` has ``publish``."""

    required_resource: ClassVar[type[BaseResource] | None] = SNSClient

    def publish(self, topic: str, message: Any, **kwargs: Any) -> None:
        """Publish a message.

        Args:
            topic: ARN, or name of a topic of this account and region.
            message: a mapping is sent as JSON, anything else as its text.
            **kwargs: of boto3's ``publish``, for instance Subject.

        Raises:
            TaskError: there is no topic of that name.
        """
        text = json.dumps(message) if isinstance(message, dict) else str(message)
        client = SNSClient.resource()
        arn = topic if topic.startswith("arn:") else self._arn(client, topic)
        self.logger.debug("publishing to %s", arn)
        client.publish(TopicArn=arn, Message=text, **kwargs)

    @staticmethod
    def _arn(client: Any, name: str) -> str:
        for page in client.get_paginator("list_topics").paginate():
            for each in page.get("Topics", ()):
                arn = str(each["TopicArn"])
                if arn.rpartition(":")[2] == name:
                    return arn
        raise TaskError(f"there is no topic {name!r} in this account and region; give its ARN, or make it")


class SNSPublish(SNSTask, abstract=True):
    """Publish an input.

    Attributes:
        input: a mapping is sent as JSON, anything else as its text.
        topic: ARN, or name.
    """

    input: Any = REQUIRED_ATTRIBUTE
    topic: Any = REQUIRED_ATTRIBUTE

    def run(self) -> None:
        """Publish it."""
        self.publish(topic=self.topic, message=self.input)


class SNSPublishEmail(SNSTask, abstract=True):
    """Publish an input with a subject, which mails have.

    Attributes:
        input: a mapping is sent as JSON, anything else as its text.
        topic: ARN, or name.
        subject: of the mail.
    """

    input: Any = REQUIRED_ATTRIBUTE
    topic: Any = REQUIRED_ATTRIBUTE
    subject: Any = REQUIRED_ATTRIBUTE

    def run(self) -> None:
        """Publish it."""
        self.publish(topic=self.topic, message=self.input, Subject=self.subject)
