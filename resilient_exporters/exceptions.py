"""The errors under the module name of the original system."""

from resilient_exporters.errors import *  # noqa: F403 - this module is a second name for errors
from resilient_exporters.errors import __all__ as __all__
