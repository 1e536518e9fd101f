"""How users write against `resilient_exporters.jobs`. Never run: `make lint` type-checks it by the strict rules."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

from resilient_exporters import FileExporter
from resilient_exporters.jobs import (
    Backlog,
    EventsExportJob,
    ExportError,
    ExportProcess,
    ImportReport,
    PendingRemoteJobs,
    ProcessReport,
    import_old_entries,
    text_exporter,
)


class Nightly(EventsExportJob):
    """As users write it, with types."""

    def export_events(self) -> int:
        with text_exporter("text.csv", Path("out.csv")) as out:
            out.export_event((0.0, "temperature", "boiler", 71.5, {"unit": "degC"}))
        return out.count

    def send_data(self) -> None:
        with FileExporter("x.jsonl") as file:
            sent: int = self.send_with(file, [{"n": 1}], resume=True)
        if not sent:
            raise ExportError("nothing", subcode=2)

    def cleanup(self, error: ExportError | None = None) -> None:
        subcode: int = 0 if error is None else error.subcode
        self.log_info("%d", subcode)


def parms(day: date) -> dict[str, Any]:
    """Of one day."""
    return {"file": f"{day}.csv"}


def slot() -> int:
    """One night."""
    backlog = Backlog("nightly", Path("spool"))
    backlog["260101"] = {"date": date(2026, 1, 1)}
    for job_id, found in backlog.iteritems():
        print(job_id, found)
    imported: ImportReport = import_old_entries(backlog)
    PendingRemoteJobs("pending").append(imported.imported[0])
    process = ExportProcess(Nightly, backlog, parms, max_age=timedelta(days=60))
    code: int = process.run(max_try=3, retry_delay=timedelta(seconds=10))
    report: ProcessReport = process.report
    print(report.failed, Nightly.error_text(code), Nightly.make_jobid(digits=12))
    return code
