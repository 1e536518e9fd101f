"""Sphinx: Markdown pages and the reference from the docstrings."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

project = "resilient_exporters"
release = version = installed("resilient-exporters")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
myst_heading_anchors = 3
exclude_patterns = ["performance/tables/*"]  # included by pages
html_theme = "furo"


def setup(app: Any) -> None:
    from module_tables import PipelineModules

    app.add_directive("pipeline-modules", PipelineModules)
