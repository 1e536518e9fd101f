"""The old types of options that are lists."""

from __future__ import annotations

from resilient_exporters.pipeline.option import ListOf

__all__ = ["dict_list", "int_list", "str_list"]

str_list, int_list, dict_list = ListOf(str), ListOf(int), ListOf(dict)
