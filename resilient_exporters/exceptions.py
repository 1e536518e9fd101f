"""The errors under the module name of the original system."""

from __future__ import annotations

from resilient_exporters import errors
from resilient_exporters.errors import *  # noqa: F403 - this module is a second name for errors

__all__ = errors.__all__
