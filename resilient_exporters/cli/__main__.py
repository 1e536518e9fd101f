"""``python -m resilient_exporters.cli`` is ``rexport``."""

from __future__ import annotations

from resilient_exporters.cli.main import main

if __name__ == "__main__":
    main()
