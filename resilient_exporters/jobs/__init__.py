"""Scheduled jobs: retried at once, and kept in a backlog for the next slot if that does not help."""

from __future__ import annotations

from resilient_exporters.jobs.backlog import DEFAULT_LOCATION_ROOT, Backlog, backlog_root
from resilient_exporters.jobs.codes import (
    ERR_EXPORT_EVENTS,
    ERR_LOAD,
    ERR_MULTIPLE,
    ERR_NAMES,
    ERR_NONE,
    ERR_PREPARE,
    ERR_SEND,
    ERR_UNEXPECTED,
    error_text,
)
from resilient_exporters.jobs.errors import CorruptEntryError, ExportError, JobIdError
from resilient_exporters.jobs.job import EventsExportJob
from resilient_exporters.jobs.old_entries import ImportReport, import_old_entries
from resilient_exporters.jobs.process import ExportProcess, ProcessReport
from resilient_exporters.jobs.remote import PendingRemoteJobs
from resilient_exporters.jobs.schedule import add_slot
from resilient_exporters.jobs.texts import TEXT_EXPORTERS, Event, TextExporter, text_exporter

__all__ = [
    "DEFAULT_LOCATION_ROOT",
    "ERR_EXPORT_EVENTS",
    "ERR_LOAD",
    "ERR_MULTIPLE",
    "ERR_NAMES",
    "ERR_NONE",
    "ERR_PREPARE",
    "ERR_SEND",
    "ERR_UNEXPECTED",
    "TEXT_EXPORTERS",
    "Backlog",
    "CorruptEntryError",
    "Event",
    "EventsExportJob",
    "ExportError",
    "ExportProcess",
    "ImportReport",
    "JobIdError",
    "PendingRemoteJobs",
    "ProcessReport",
    "TextExporter",
    "add_slot",
    "backlog_root",
    "error_text",
    "import_old_entries",
    "text_exporter",
]
