"""Databases in odd places and in bad shape, and what the command line prints of them."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from command import called
from emulation import emulated_run, varied_workload
from powerless import forked, without_powers

from wattbench.cli.main import main
from wattbench.core.errors import StoreError, UsageError
from wattbench.store import check_place, connect, database_url, load_run, select_runs, show_url

Call = Callable[..., subprocess.CompletedProcess[str]]
KEPT = Path(__file__).parent / "data"
ODD_NAMES = ("a?b.sqlite", "a#b.sqlite", "a%20b.sqlite", "ä: b&c=d.sqlite")


def powerless(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command by somebody whom the permissions of files bind."""
    return without_powers(lambda: called(*arguments))


def good(*arguments: str, call: Call = called) -> str:
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments: str, code: int = 1, call: Call = called) -> str:
    done = call(*arguments)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert len(done.stderr) < 600, "an error is one paragraph"
    return done.stderr


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a batch of four operating points; nobody has it open."""
    path = tmp_path_factory.mktemp("stored") / "runs.sqlite"
    arguments = ("--backend", "emulated", "--hardware", "h100-sxm", "--concurrency", "1,2,4,8")
    good("run", "quickstart", *arguments, "--db", str(path))
    return path


@pytest.fixture
def shelf(stored: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of that database in a folder of its own, which may be made read-only."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    yield Path(shutil.copy(stored, folder))
    folder.chmod(0o755)


def lock(path: Path) -> None:
    for file in path.parent.iterdir():
        file.chmod(0o444)
    path.parent.chmod(0o555)


def test_results_are_read_where_nothing_can_be_written(shelf: Path, tmp_path: Path) -> None:
    """Read-only file, read-only folder: show, list and plot say what they say elsewhere."""
    expected = good("show", "latest", "--db", str(shelf), call=powerless)
    before = shelf.read_bytes()
    lock(shelf)
    assert good("show", "latest", "--db", str(shelf), call=powerless) == expected
    assert "completed" in good("list", "runs", "--db", str(shelf), call=powerless)
    picture = tmp_path / "frontier.png"
    good("plot", "frontier", "--out", str(picture), "--db", str(shelf), call=powerless)
    assert picture.stat().st_size > 0
    assert [file.name for file in shelf.parent.iterdir()] == [shelf.name]
    assert shelf.read_bytes() == before


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o755), (0o644, 0o555)])
def test_results_are_read_with_half_of_the_permissions(
    shelf: Path, file_mode: int, folder_mode: int
) -> None:
    """A read-only file in an open folder, and an open file in a read-only folder."""
    shelf.chmod(file_mode)
    shelf.parent.chmod(folder_mode)
    for _ in range(2):
        assert "completed" in good("list", "runs", "--db", str(shelf), call=powerless)
        assert "J / output token" in good("show", "latest", "--db", str(shelf), call=powerless)


def test_a_run_into_a_read_only_database_is_refused_before_it_begins(shelf: Path) -> None:
    """Nothing is measured that could not be kept."""
    lock(shelf)
    arguments = ("run", "quickstart", "--backend", "emulated", "--hardware", "h100-sxm")
    assert "cannot be opened for writing" in refused(*arguments, "--db", str(shelf), call=powerless)


def test_records_beside_a_read_only_database_are_not_passed_over(shelf: Path) -> None:
    """A -wal that cannot be read is an error, not a shorter list of runs."""
    engine = connect(database_url(str(shelf)), create=True)
    emulated_run(engine, varied_workload(measure={"requests": 3}), concurrency=1, seed=1)
    wal = shelf.with_name(shelf.name + "-wal")
    kept = wal.read_bytes()
    engine.dispose()
    assert kept
    wal.write_bytes(kept)
    wal.chmod(0o000)
    shelf.chmod(0o444)
    shelf.parent.chmod(0o555)
    assert "-wal" in refused("list", "runs", "--db", str(shelf), call=powerless)


def test_an_older_schema_in_a_read_only_place_must_be_copied(tmp_path: Path) -> None:
    """Migration writes; where that cannot be, the way out is named."""
    folder = tmp_path / "old"
    folder.mkdir()
    old = Path(shutil.copy(min(KEPT.glob("store_*.sqlite")), folder))
    engine = sa.create_engine(f"sqlite:///{old}")
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM alembic_version"))
    engine.dispose()
    lock(old)
    try:
        assert "copy it" in refused("show", "latest", "--db", str(old), call=powerless)
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("seed", range(3))
def test_damage_in_the_middle_is_an_error(shelf: Path, seed: int) -> None:
    """Noise over part of the file: one sentence or an answer, never a traceback."""
    rng = np.random.default_rng(seed)
    size = shelf.stat().st_size
    with shelf.open("r+b") as file:
        start = 4096 if seed == 0 else int(rng.integers(4096, size // 2))
        file.seek(start)
        file.write(rng.bytes(min(200_000, size - start)))
    for arguments in (("show", "latest"), ("list", "runs")):
        done = called(*arguments, "--db", str(shelf))
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 1)
        if seed == 0:
            assert done.returncode == 1
            assert str(shelf) in done.stderr
            assert "damaged" in done.stderr


def test_damaged_values_are_an_error(shelf: Path) -> None:
    """What SQLite hands out but nobody can read is damage as well."""
    for column, value in (("engine", "'{'"), ("engine", "'[]'"), ("writer", "'3'")):
        engine = connect(database_url(str(shelf)), create=True)
        with engine.begin() as connection:
            kept = connection.scalar(sa.text(f"SELECT {column} FROM runs"))
            connection.execute(sa.text(f"UPDATE runs SET status = 'running', {column} = {value}"))
        with pytest.raises(StoreError, match="damaged"):
            load_run(engine, select_runs(engine, "latest")[0].run_id)
        with engine.begin() as connection:
            connection.execute(sa.text(f"UPDATE runs SET {column} = :kept"), {"kept": kept})
        engine.dispose()


@pytest.mark.parametrize(
    "text",
    ["", ":memory:", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///?mode=memory"],
)
def test_a_database_is_a_file(text: str) -> None:
    """What lives in memory is gone when the command ends."""
    with pytest.raises(UsageError, match="name a file"):
        database_url(text)
    assert "name a file" in refused("list", "runs", "--db", text, code=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sqlite://host/runs.sqlite", "three slashes"),
        ("sqlite:///runs.sqlite?mode=ro", "as a plain path"),
        ("sqlite+aiosqlite:///runs.sqlite", "only SQLite"),
        ("postgresql://me:secret@host/runs", "only SQLite"),
        ("postgresql://me:secret@host:port/runs", "neither"),
        ("x" * 300, "File name too long"),
        ("x/" * 3000, "bytes long"),
    ],
)
def test_other_places_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """One sentence with the way out, and no password in it."""
    for command in (("list", "runs"), ("run", "quickstart", "--backend", "openvino")):
        done = called(*command, "--db", text)
        assert "Traceback" not in done.stderr
        assert message in done.stderr
        assert "secret" not in done.stderr
        assert len(done.stderr) < 800
        assert done.returncode in (1, 2)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_paths_are_taken_literally(name: str, tmp_path: Path) -> None:
    """No character of a path means anything: the file has just this name."""
    folder = tmp_path / "odd ?#%41 folder"
    path = folder / name
    arguments = ("--backend", "emulated", "--hardware", "h100-sxm", "--db", str(path))
    good("run", "quickstart", *arguments)
    assert [file.name for file in folder.iterdir()] == [name]
    url = database_url(str(path))
    assert show_url(url) == str(path)
    check_place(url)
    for create in (False, True):
        engine = connect(url, create=create)
        assert len(select_runs(engine, None)) == 1
        engine.dispose()
    assert [file.name for file in folder.iterdir()] == [name]


def test_the_default_place_is_taken_literally(tmp_path: Path) -> None:
    """A data folder with odd characters in its name works like any other."""
    environment = {"XDG_DATA_HOME": str(tmp_path / "a?b#c"), "WATTBENCH_DB": ""}
    call = functools.partial(called, **environment)
    run = ("run", "quickstart", "--backend", "emulated", "--hardware", "h100-sxm")
    good(*run, call=call)
    assert (tmp_path / "a?b#c" / "wattbench" / "wattbench.sqlite").is_file()
    assert "completed" in good("list", "runs", call=call)


def on_a_terminal(columns: int, *arguments: str) -> list[str]:
    """Lines that the command prints on a terminal of some width, without colours."""
    ours, its = os.openpty()

    def act() -> None:
        os.environ.update(COLUMNS=str(columns), TERM="xterm")
        sys.stdout = sys.stderr = os.fdopen(its, "w", encoding="utf-8")
        with contextlib.suppress(SystemExit):
            main(list(arguments))
        sys.stdout.flush()

    child = forked(act)
    os.close(its)
    text = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # what Linux answers when the other side is closed
            break
        text += block
    os.close(ours)
    assert os.waitpid(child, 0)[1] == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.decode()).splitlines()


@pytest.fixture(scope="module")
def wide(stored: Path) -> list[str]:
    """The table at a width at which nothing has to give."""
    return on_a_terminal(400, "show", "latest", "--db", str(stored))


@pytest.mark.parametrize("columns", [30, 60, 80, 100, 200])
def test_no_cell_of_a_table_is_cut(stored: Path, wide: list[str], columns: int) -> None:
    """Every figure of a wide table stands in a narrow one, in fewer columns side by side."""
    narrow = on_a_terminal(columns, "show", "latest", "--db", str(stored))
    words = set(" ".join(wide[1 : wide.index("Findings")]).split())
    assert {"concurrency", "8", "…", "withheld,", "board"} <= words
    text = " ".join(narrow)
    # At 30 columns words are broken, but not one character is missing.
    shown = set(text.split()) if columns > 40 else text.replace(" ", "")
    assert not [word for word in words if word not in shown]
    if columns > 60:
        assert all(" … " in line for line in narrow if "…" in line)
        assert max(map(len, narrow[1 : narrow.index("Findings")])) <= columns
        assert len([line for line in narrow if re.match(r" +concurrency ", line)]) <= 4


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_cell_of_a_listing_is_cut(stored: Path, columns: int) -> None:
    """Run ids, dates and names are whole at any width."""
    lines = on_a_terminal(columns, "list", "runs", "--db", str(stored))
    text = " ".join(lines)
    assert "…" not in text
    assert len(re.findall(r"\d{8}-\d{6}-[0-9a-f]{6}-p\d{4}-r\d{4}", text)) == 4
    assert text.count("quickstart") == 4
    assert len(re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", text)) == 4


def test_withheld_percentiles_are_one_line(stored: Path) -> None:
    """One finding for all points: which percentile takes how many values, and where it lacks."""
    shown = good("show", "latest", "--db", str(stored))
    assert shown.count("too_few_samples") == 1
    found = " ".join(shown[shown.index("too_few_samples") :].split())
    assert "p95 takes 72 values (concurrency 1, concurrency 2);" in found
    assert "p99 takes 368 values (concurrency 1, concurrency 2, concurrency 4" in found
    listed = good("show", "latest", "--db", str(stored), "--json")
    assert listed.count("too_few_samples") > 3


def test_names_are_printed_as_they_are(shelf: Path) -> None:
    """Neither emoji codes nor markup in a name mean anything."""
    engine = connect(database_url(str(shelf)), create=True)
    with engine.begin() as connection:
        changed = "json_set(engine, '$.model', 'my:smile:[bold]model')"
        connection.execute(sa.text(f"UPDATE runs SET engine = {changed}, tag = ':smile:[red]'"))
    engine.dispose()
    assert "my:smile:[bold]model" in good("show", "latest", "--db", str(shelf))
    assert ":smile:[red]" in good("list", "runs", "--db", str(shelf))


def test_selectors_are_called_selectors(stored: Path) -> None:
    """``show`` has no --runs, so no message speaks of it."""
    for selector in ("colour=red", "tag='x", "since=yesterday", "since=0001-01-01"):
        error = refused("show", selector, "--db", str(stored), code=2)
        assert "--runs" not in error
        assert "selector" in error


@pytest.mark.parametrize("topic", ["backends", "meters"])
def test_listings_have_no_backticks(topic: str) -> None:
    """Docstrings are written for a documentation tool; a terminal is none."""
    for extra in ((), ("--json",)):
        assert "``" not in good("list", topic, *extra)
