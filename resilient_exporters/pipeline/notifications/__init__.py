"""Notifications: who is told that a run began, ended or failed."""

from __future__ import annotations

from resilient_exporters.pipeline.notifications.apprise_notifier import AppriseNotifier
from resilient_exporters.pipeline.notifications.base import CLIENTS, TEAM, BaseNotifier
from resilient_exporters.pipeline.notifications.mail_notifier import SESMailNotifier
from resilient_exporters.pipeline.notifications.webhook_notifier import WebhookNotifier

__all__ = ["CLIENTS", "TEAM", "AppriseNotifier", "BaseNotifier", "SESMailNotifier", "WebhookNotifier"]
