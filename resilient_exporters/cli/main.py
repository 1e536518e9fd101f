"""Where ``rexport`` begins: says what to install if the extra ``cli`` is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit with its code.

    Args:
        arguments: without the name of the program; None for those of this process.
    """
    try:
        import rich  # noqa: F401 - asked for here, so that the message comes before any work

        from resilient_exporters.cli.root import rexport
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.exit(f"rexport needs {error.name}: pip install 'resilient-exporters[cli]'")
    rexport.main(None if arguments is None else list(arguments), prog_name="rexport")


if __name__ == "__main__":
    main()
