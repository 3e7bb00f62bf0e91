"""No key that a result file repeats gets into the store, an export or a message."""

from __future__ import annotations

import sqlite3
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command import called
from peer_files import aiperf_record, aiperf_totals
from result_files import imported, vllm_details, vllm_result, write_json, write_lines

from wattbench.core.redaction import without_credentials

MARK = "sEcReT42"
ADDRESS = f"http://u:{MARK}@host:8000/v1/completions?api_key={MARK}&n={MARK}"


def everything_of(database: Path) -> bytes:
    """Every cell of every table, unpacked where it is packed."""
    cells = []
    with closing(sqlite3.connect(database)) as store:
        names = [
            name for (name,) in store.execute("select name from sqlite_master where type='table'")
        ]
        for name in names:
            for row in store.execute(f"select * from {name}"):
                cells += [_plain(cell) for cell in row]
    return b"\n".join(cells)


def _plain(cell: Any) -> bytes:
    if not isinstance(cell, bytes):
        return str(cell).encode()
    try:
        return zlib.decompress(cell)
    except zlib.error:
        return cell


def stored(tmp_path: Path, path: Path) -> bytes:
    """What the store, and an export of it, hold of a file; nothing is printed of it either."""
    database = str(tmp_path / "db")
    done = called("import", str(path), "--db", database, "--json")
    assert done.returncode == 0, done.stderr
    out = str(tmp_path / "out")
    assert (
        called(
            "export", "--format", "wattbench", "--runs", "latest", "--db", database, "--out", out
        ).returncode
        == 0
    )
    table = called("show", "latest", "--db", database)
    exported = b"".join(file.read_bytes() for file in Path(out).rglob("*") if file.is_file())
    told = (done.stdout + done.stderr + table.stdout + table.stderr).encode()
    return everything_of(tmp_path / "db") + exported + told


@pytest.mark.parametrize("place", ["nested", "model", "error", "key", "command_line"])
def test_keys_in_any_field(tmp_path: Path, place: str) -> None:
    """An address at any depth, a model that is one, an error that repeats a header."""
    errors = [f"401 at {ADDRESS}: Authorization: Bearer {MARK}", ""]
    more: dict[str, dict[str, Any]] = {
        "nested": {"in": [{"deep": {"where": ADDRESS, "n": 1}}]},
        "model": {"model_id": ADDRESS},
        "error": {"errors": errors},
        "key": {"by": {ADDRESS: 1.0}},
        "command_line": {"command_line": ["--api-key", MARK]},
    }
    result = vllm_result() | vllm_details() | more[place]
    if place == "error":
        result |= {"ttfts": [0.1, 0.1], "output_lens": [0, 3]}
    kept = stored(tmp_path, write_json(tmp_path / "v.json", result))
    assert MARK.encode() not in kept
    assert b"some/model" in kept or place == "model"
    if place in ("nested", "model", "key"):
        assert b"http://host:8000/v1/completions?api_key=left-out&n=left-out" in kept


def test_a_path_with_a_query(tmp_path: Path) -> None:
    """AIPerf splits an address; its path alone may hold the key."""
    totals = aiperf_totals()
    totals["input_config"] = dict(totals.get("input_config") or {}) | {
        "endpoint": {"path": f"/v1/completions?api_key={MARK}", "urls": [ADDRESS]}
    }
    write_json(tmp_path / "a" / "profile_export_aiperf.json", totals)
    write_lines(tmp_path / "a" / "profile_export.jsonl", [aiperf_record(0), aiperf_record(1)])
    kept = stored(tmp_path, tmp_path / "a")
    assert MARK.encode() not in kept
    assert b"/v1/completions?api_key=left-out" in kept


def test_text_that_is_no_json(tmp_path: Path) -> None:
    """A column of CSV and the mapping beside it are cleared as well."""
    path = tmp_path / "m.csv"
    path.write_text(f"w,s,where\n300,10,{ADDRESS}\n", encoding="utf-8")
    mapping = tmp_path / "map.yaml"
    figure = "{metric: mean_power_watts, field: w, unit: W}"
    mapping.write_text(
        f"tool: t\nboundary: node\nmodel: {{field: where}}\nfigures:\n  - {figure}\n# {ADDRESS}\n",
        encoding="utf-8",
    )
    imported(tmp_path / "db", path, "--map", mapping)
    kept = everything_of(tmp_path / "db")
    assert MARK.encode() not in kept
    assert kept.count(b"//host:8000/v1/completions?api_key=left-out") == 3


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Incorrect API key provided: sk-abcdefgh1234", "Incorrect API key provided: sk-left-out"),
        ("Authorization: Bearer abcdef123", "Authorization: Bearer left-out"),
        ('{"authorization": "Basic dTprZXk="}', '{"authorization": "Basic left-out"}'),
        ("bearer abcdef123 is wrong", "bearer left-out is wrong"),
        ("api_key=abc&x=1 is wrong", "api_key=left-out&x=1 is wrong"),
        ("x-api-key: abc", "x-api-key: left-out"),
        ("see http://u:k@h:1/p?token=a#b", "see http://h:1/p?token=left-out#b"),
        ("http://h/p?abc", "http://h/p?left-out"),
        ("ws://h/#access_token=abc", "ws://h/#access_token=left-out"),
        ("/v1/x?a=b;c=d", "/v1/x?a=left-out;c=left-out"),
        ("refused: token=plainSECRETtok of a", "refused: token=left-out of a"),
        ("got eyJhbGciOiJI.eyJzdWIiOiIx.s1-_g here", "got left-out here"),
        ("no such key AKIAABCDEFGH01234567.", "no such key left-out."),
        ("secret_access_key = abc/def", "secret_access_key = left-out"),
        ("at //user:pw@host:1/p?a=b", "at //host:1/p?a=left-out"),
        ("at //user:pw@host?abc", "at //host?left-out"),
    ],
)
def test_what_opens_a_door_goes(text: str, found: str) -> None:
    """Names stay, so that a reader sees what was there; twice is once."""
    assert without_credentials(text) == found
    assert without_credentials(found) == found


@pytest.mark.parametrize(
    "text",
    [
        "meta-llama/Llama-3.1-8B-Instruct",
        "https://example.org/a/b#part",
        "What is 1+1? Is a=b?",
        "user@example.org wrote: task-based work, risk-averse people",
        "mean power 3 W, 100 tokens/s",
        "token = 5, max_token=100000, a // b, tokens=1234567",
        "eyJ is how a web token begins, AKIA another key",
    ],
)
def test_other_text_stays(text: str) -> None:
    """What opens no door is as it was."""
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    "part",
    [
        "://",
        "?a=",
        "api key ",
        "password" + " " * 9,
        "sk-",
        "\\'",
        "//",
        "-eyJaaaaaa",
        ".eyJaaaaaa",
    ],
)
def test_no_text_takes_long(part: str) -> None:
    """Half a megabyte of the worst is cleared in less than the time of a timeout."""
    begin_s = time.monotonic()
    without_credentials("http" + part * (500_000 // len(part)))
    assert time.monotonic() - begin_s < 20
