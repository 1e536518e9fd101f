"""pycstbox.export: its names, which are those of `resilient_exporters.jobs`.

``from resilient_exporters.compat.pycstbox_export import EventsExportJob, Backlog, ExportError`` where it was
``from pycstbox.export import …``. Only the place of backlogs without a ``root`` is the old one here.
"""

from __future__ import annotations

import os
from pathlib import Path

from resilient_exporters.jobs import DEFAULT_LOCATION_ROOT, EventsExportJob, ExportError
from resilient_exporters.jobs import Backlog as _Backlog
from resilient_exporters.jobs.loggable import Loggable

__all__ = ["DEFAULT_LOCATION_ROOT", "Backlog", "EventsExportJob", "ExportError", "Loggable"]


class Backlog(_Backlog):
    """The backlog of `resilient_exporters.jobs`, by default in the place where pycstbox has it.

    Args:
        name: of the backlog.
        root: where its directory lies. Default: ``DEFAULT_LOCATION_ROOT``.
    """

    DEFAULT_LOCATION_ROOT = DEFAULT_LOCATION_ROOT

    def __init__(self, name: str, root: str | os.PathLike[str] | None = None) -> None:
        super().__init__(name, Path(self.DEFAULT_LOCATION_ROOT) if root is None else root)
