from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click.testing
import pytest

import resilient_exporters
from resilient_exporters.cli.root import rexport

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from resilient_exporters.cli.main import main
main({arguments!r})
"""


def without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(module=module, arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("module", ["click", "rich"])
def test_a_missing_extra_is_named(module: str) -> None:
    done = without(module, "--version")

    assert done.returncode == 1
    assert done.stderr == f"rexport needs {module}: pip install 'resilient-exporters[cli]'\n"


def test_the_demo_names_the_extra_it_needs() -> None:
    done = without("sqlalchemy", "demo")

    assert done.returncode == 2
    assert "resilient-exporters[cli,sql]" in done.stderr


def test_the_version_is_that_of_the_package() -> None:
    command = [sys.executable, "-m", "resilient_exporters.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.stdout == f"rexport, version {resilient_exporters.__version__}\n"


@pytest.mark.parametrize("command", [[], ["send"], ["demo"], ["queue"], ["queue", "ls"], ["queue", "discard"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    result = click.testing.CliRunner().invoke(rexport, [*command, "--help"])

    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_every_command_of_a_group_has_one_line_of_help() -> None:
    from resilient_exporters.cli.queue import queue

    for name in ("ls", "show", "peek", "verify", "repair", "dead", "replay", "discard", "export"):
        help_text = queue.commands[name].help
        assert help_text
        assert len(help_text.splitlines()[0]) < 110


def test_an_unknown_command_is_wrong_use() -> None:
    assert click.testing.CliRunner().invoke(rexport, ["frobnicate"]).exit_code == 2


def test_help_loads_nothing_that_the_command_does_not_need() -> None:
    code = "import sys; from resilient_exporters.cli.root import rexport; "
    code += "rexport.main(['queue', 'ls'], standalone_mode=False); "
    code += "print([m for m in ('sqlalchemy', 'numpy', 'pymongo') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)

    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    from tests.unit.test_inspection import closed

    closed(tmp_path / "q", 20_000)
    command = f"{sys.executable} -m resilient_exporters.cli queue export {tmp_path / 'q'} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, check=False)

    assert done.stdout == '{"n":0}\n'
    assert done.stderr == ""
