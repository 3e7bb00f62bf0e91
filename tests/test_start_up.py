"""What the command line promises before it does anything: a light start, and full help."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from reference import PATH, UPDATE, contexts, render

from wattbench.cli.main import COMMANDS

HEAVY = (
    "aiohttp alembic gguf matplotlib numpy openvino openvino_genai pandas psutil pydantic rich "
    "scipy sqlalchemy tokenizers yaml"
)
HELP = """
from wattbench.cli.main import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code, end.code
"""


def test_help_loads_nothing_heavy() -> None:
    """``wattbench --help`` tells its commands without importing any large library."""
    shown, heavy = _run(HELP)
    assert all(command in shown for command in COMMANDS)
    assert heavy == []


def test_a_heavy_import_is_noticed() -> None:
    """The look at what is loaded sees an import of a part of a library."""
    _, heavy = _run("import numpy.typing")
    assert heavy == ["numpy"]


def _run(code: str) -> tuple[str, list[str]]:
    """What a fresh interpreter prints, and which heavy libraries it has then loaded."""
    code += (
        f"\nimport sys\nprint(*sorted(set({HEAVY.split()}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout, done.stderr.split()


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """The written reference, by heading."""
    assert PATH.is_file(), f"docs/reference.md is missing; write it with `{UPDATE}`"
    parts = re.split(r"^#+ (.*)\n", PATH.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.usefixtures("sections")
def test_the_reference_is_up_to_date() -> None:
    """``docs/reference.md`` says what the code says."""
    same = PATH.read_text(encoding="utf-8") == render()
    assert same, f"docs/reference.md is out of date; write it again with `{UPDATE}`"


@pytest.mark.parametrize("path", ["wattbench", *(f"wattbench {name}" for name in COMMANDS)])
def test_a_command_and_its_options_are_explained(path: str, sections: dict[str, str]) -> None:
    """A command has help, laid out as meant; each of its options has, and is in the reference."""
    (context,) = (each for each in contexts() if each.command_path == path)
    section = sections[f"`{path}`"]
    assert context.command.help
    assert "\\b" not in context.command.help, "a raw docstring hides the mark of click's layout"
    for parameter in context.command.get_params(context):
        names = parameter.opts
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{names[0]} has no help"
        else:
            names = [parameter.human_readable_name]
        assert [name for name in names if name not in section] == []


def test_findings_are_explained(sections: dict[str, str]) -> None:
    """Every code that a check or a missing energy can give is in the reference."""
    code = re.compile(r'(?:_?finding|InsufficientCoverage|Unmeasured)\(\s*(?:reason=)?"([\w.]+)"')
    package = PATH.parents[1] / "wattbench"
    text = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    codes = set(code.findall(text))
    assert {"meter_failed", "gap", "no_meter"} <= codes
    assert {
        name for name in codes if f"`{name}`" not in sections["Findings"] + sections["Metrics"]
    } == set()
