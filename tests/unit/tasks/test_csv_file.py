from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from resilient_exporters.tasks import Rows, TasksFailed, to_csv, update_format_kws

TABLES = {
    "pandas": pd.DataFrame({"a": [1, 2], "b": ["x, y", None]}),
    "polars": pl.DataFrame({"a": [1, 2], "b": ["x, y", None]}),
    "rows": [{"a": 1, "b": "x, y"}, {"a": 2, "b": None}],
    "late column": [{"a": 1, "b": "x, y"}, {"a": 2}],
    "stream": Rows(["a", "b"], [[1, "x, y"], [2, None]]),
}
EXPECTED = 'a,b\n1,"x, y"\n2,\n'


@pytest.mark.parametrize("data", TABLES.values(), ids=TABLES)
class TestTables:
    def test_all_tables_make_the_same_file(self, tmp_path: Path, data):
        update_format_kws(name="out")
        to_csv(filename=f"{tmp_path}/{{name}}.csv", input=data)
        assert (tmp_path / "out.csv").read_text() == EXPECTED

    def test_compressed_by_the_name(self, tmp_path: Path, data):
        to_csv(filename=str(tmp_path / "out.csv.gz"), input=data)
        assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).decode() == EXPECTED

    def test_with_parameters(self, tmp_path: Path, data):
        params = {"index": False, "sep": ";", "header": False, "na_rep": "-", "columns": ["b", "a"]}
        to_csv(filename=str(tmp_path / "out.csv"), input=data, params=params)
        assert (tmp_path / "out.csv").read_text() == "x, y;1\n-;2\n"


@pytest.mark.parametrize("data", [TABLES["pandas"], TABLES["rows"]], ids=["pandas", "rows"])
def test_a_file_that_is_there_is_replaced_only_if_that_is_said(tmp_path: Path, data):
    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(TasksFailed, match="exists; set overwrite_if_exists = True to replace it"):
        to_csv(filename=str(path), input=data)
    assert path.read_text() == "old"
    to_csv(filename=str(path), input=data, overwrite_if_exists=True)
    assert path.read_text() == EXPECTED


def test_a_write_that_fails_leaves_what_there_was(tmp_path: Path):
    def broken():
        yield {"a": 1}
        raise OSError("the source went away")

    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(TasksFailed, match="the source went away"):
        to_csv(filename=str(path), input=broken(), overwrite_if_exists=True)
    assert [one.name for one in tmp_path.iterdir()] == ["out.csv"]
    assert path.read_text() == "old"


def test_a_new_file_has_the_rights_that_files_have(tmp_path: Path):
    (tmp_path / "other").touch()
    to_csv(filename=str(tmp_path / "out.csv"), input=TABLES["rows"])
    assert (tmp_path / "out.csv").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_pandas_may_append(tmp_path: Path):
    path, data = tmp_path / "out.csv", TABLES["pandas"]
    to_csv(filename=str(path), input=data)
    append = {"index": False, "mode": "a", "header": False}
    to_csv(filename=str(path), input=data, params=append, overwrite_if_exists=True)
    assert len(path.read_text().splitlines()) == 5
    with pytest.raises(TasksFailed, match="mode 'a' is possible with a pandas DataFrame only"):
        to_csv(filename=str(path), input=TABLES["rows"], params=append, overwrite_if_exists=True)


def test_quoting_and_lines(tmp_path: Path):
    params = {"quoting": csv.QUOTE_ALL, "lineterminator": "\r\n", "encoding": "utf-16"}
    to_csv(filename=str(tmp_path / "out.csv"), input=[{"ä": 1}], params=params)
    assert (tmp_path / "out.csv").read_bytes().decode("utf-16") == '"ä"\r\n"1"\r\n'


@pytest.mark.parametrize(
    ("data", "params", "text"),
    [
        ("text", {}, "an input of type str is no table"),
        (7, {}, "an input of type int is no table"),
        ([7], {}, "a row of type int has no columns"),
        ([{"a": 1}], {"float_format": "%.2f"}, "params has float_format, which only a pandas DataFrame takes"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, data, params, text):
    with pytest.raises(TasksFailed, match=text):
        to_csv(filename=str(tmp_path / "out.csv"), input=data, params=params)
    assert list(tmp_path.iterdir()) == []
