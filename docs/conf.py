"""Sphinx: Markdown pages and the reference from the docstrings."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "resilient_exporters"
release = version = installed("resilient-exporters")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
myst_heading_anchors = 3
html_theme = "furo"
