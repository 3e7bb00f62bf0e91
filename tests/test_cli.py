"""The command line as a user meets it: output, exit codes, errors that help."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import sqlalchemy as sa
from command import called

from wattbench.core.errors import UsageError
from wattbench.store import connect, database_url

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "wattbench" / "result.schema.json").read_text())
EMULATED = ("--backend", "emulated", "--hardware", "h100-sxm", "--seed", "1")
SHORT = """
name: short
about: A few short answers.
session: {input_tokens: 20, output_tokens: {kind: uniform, low: 4, high: 12}}
arrivals: {kind: closed, concurrency: [2]}
warmup: {requests_per_user: 1}
measure: {duration_s: 1.5}
"""


def good(*arguments: str) -> str:
    done = called(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def workload(tmp_path: Path) -> str:
    path = tmp_path / "short.yaml"
    path.write_text(SHORT)
    return str(path)


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "runs.sqlite")


def without_ids_and_dates(shown: dict[str, Any]) -> str:
    text = json.dumps({**shown, "db": ""})
    text = re.sub(r"\d{8}-\d{6}-[0-9a-f]{6}", "BATCH", text)
    return re.sub(r'"(start|end)_unix_s": [\d.]+', r'"\1_unix_s": 0', text)


def test_same_seed_same_json(database: str) -> None:
    """Twice the same object but for ids, paths and dates; it keeps its published schema."""
    arguments = ("run", "quickstart", *EMULATED, "--db", database, "--json")
    first, second = (json.loads(good(*arguments)) for _ in range(2))
    jsonschema.validate(first, SCHEMA)
    assert without_ids_and_dates(first) == without_ids_and_dates(second)
    other = json.loads(good("run", "quickstart", *EMULATED[:-1], "2", "--db", database, "--json"))
    assert without_ids_and_dates(first) != without_ids_and_dates(other)


def test_show_concludes_the_same_from_raw(database: str, workload: str) -> None:
    """`show --json` equals what the run printed."""
    printed = json.loads(good("run", workload, *EMULATED, "--db", database, "--json"))
    assert json.loads(good("show", "latest", "--db", database, "--json")) == printed
    run_id = printed["points"][0]["run_ids"][0]
    assert json.loads(good("show", run_id, "--db", database, "--json")) == printed


def test_table_names_points_kinds_and_findings(database: str, workload: str) -> None:
    """The table has every metric; findings say what a reader must know."""
    shown = good(
        "run", workload, *EMULATED, "--concurrency", "1,8", "--repeats", "2", "--db", database
    )
    for text in ("concurrency 1", "concurrency 8", "J / output token", "counter, board", database):
        assert text in shown
    for code in ("emulated_device", "window_too_short", "too_few_samples", "no_idle_baseline"):
        assert code in shown


def test_open_loop_counts_the_wait_for_a_slot(tmp_path: Path, database: str) -> None:
    """Poisson arrivals faster than one slot can serve: the wait is part of TTFT."""
    path = tmp_path / "open.yaml"
    path.write_text(
        SHORT.replace(
            "{kind: closed, concurrency: [2]}",
            "{kind: poisson, rate_per_s: [30], max_concurrency: 1}",
        )
    )
    (point,) = json.loads(good("run", str(path), *EMULATED, "--db", database, "--json"))["points"]
    assert point["operating_point"] == {"concurrency": 1, "rate_per_s": 30.0}
    ttft, tpot = point["metrics"]["ttft_s"]["p50"], point["metrics"]["tpot_s"]["p50"]
    assert ttft["value"] > 10 * tpot["value"]


def test_list_and_plot(database: str, workload: str, tmp_path: Path) -> None:
    """Every listing has a text and a JSON face; a picture is a picture."""
    good("run", workload, *EMULATED, "--concurrency", "1,4", "--tag", "a", "--db", database)
    listed = json.loads(good("list", "runs", "--runs", "tag=a", "--db", database, "--json"))
    assert [run["status"] for run in listed["runs"]] == ["completed", "completed"]
    for topic in ("backends", "meters", "workloads", "hardware"):
        assert json.loads(good("list", topic, "--json"))[topic]
        assert good("list", topic)
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        out = tmp_path / f"frontier{suffix}"
        good("plot", "frontier", "--out", str(out), "--db", database)
        assert out.read_bytes().startswith(magic)


def test_plot_shows_what_the_runs_say(database: str, workload: str, tmp_path: Path) -> None:
    """The drawing has both points, their labels, units on the axes and a legend."""
    good("run", workload, *EMULATED, "--concurrency", "1,4", "--db", database)
    out = tmp_path / "frontier.svg"
    good("plot", "frontier", "--out", str(out), "--db", database)
    from wattbench.cli.show import load_points
    from wattbench.plots import frontier

    points, _ = load_points("latest", database)
    axes = frontier(points).axes[0]
    assert "tokens/s/user" in axes.get_xlabel()
    assert "tokens/J" in axes.get_ylabel()
    assert {text.get_text() for text in axes.texts} >= {"c1", "c4"}
    x, y = (np.asarray(values) for values in axes.lines[0].get_data())
    for index, point in enumerate(points):
        metrics = point.facts.metrics
        assert x[index] == metrics["interactivity_tokens_per_s_per_user"].value
        assert y[index] == metrics["tokens_per_joule"].value


class _NotOpenAI(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>a printer</html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def printer() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _NotOpenAI)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def stored_rows(database: str) -> int:
    engine = connect(database_url(database), create=False)
    with engine.connect() as connection:
        rows = connection.scalar(sa.text("SELECT count(*) FROM runs"))
    engine.dispose()
    return int(rows or 0)


BAD_WORKLOADS = [
    ("warmup:", "warm_up:", "unknown key 'warm_up'; did you mean 'warmup'?"),
    ("{kind: closed, concurrency: [2]}", "{kind: poisson, rate_per_s: [-3]}", "rate_per_s.0 = -3"),
    ("duration_s: 1.5", "duration_s: -1", "measure.duration_s = -1"),
    ("low: 4, high: 12", "low: 40, high: 12", "low 40 is above high 12"),
    ("about: A few short answers.", "", "about: Field required"),
    ("name: short", "name: [", "is not YAML"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD_WORKLOADS)
def test_bad_workload_names_file_line_and_key(
    tmp_path: Path, database: str, old: str, new: str, message: str
) -> None:
    """Exit code 2, one paragraph, nothing stored."""
    path = tmp_path / "bad.yaml"
    path.write_text(SHORT.replace(old, new))
    done = called("run", str(path), *EMULATED, "--db", database)
    assert done.returncode == 2
    assert message in done.stderr
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(database).exists()


def bad_arguments(tmp_path: Path, printer: str) -> list[tuple[int, str, tuple[str, ...]]]:
    corrupt = tmp_path / "corrupt.gguf"
    corrupt.write_bytes(b"GGUF" + bytes(200))
    nowhere = f"http://127.0.0.1:{closed_port()}/v1"
    return [
        (2, "unknown workload 'quickstar'; did you mean 'quickstart'", ("quickstar", *EMULATED)),
        (2, "did you mean 'h100-sxm'", ("quickstart", *EMULATED[:3], "h100-sx")),
        (2, "needs --hardware", ("quickstart", "--backend", "emulated")),
        (2, "unknown backend 'opnvino'; did you mean", ("quickstart", "--backend", "opnvino")),
        (2, "unknown meter 'cpuload'; did you mean", ("quickstart", "--meter", "cpuload")),
        (
            2,
            "did you mean 'tdp_watts'",
            ("quickstart", "--meter", "cpu-load,tdp=9"),
        ),
        (2, "tdp_watts='x' is not a number", ("quickstart", "--meter", "cpu-load,tdp_watts=x")),
        (2, "absent.gguf", ("quickstart", "--backend", "openvino,model=absent.gguf")),
        (1, "corrupt.gguf", ("quickstart", "--backend", f"openvino,model={corrupt}")),
        (1, nowhere, ("quickstart", "--backend", f"openai,url={nowhere}")),
        (
            1,
            "not an OpenAI-compatible",
            ("quickstart", "--backend", f"openai,url={printer}"),
        ),
        (2, "list of whole numbers", ("quickstart", *EMULATED, "--concurrency", "1,x")),
        (2, "meter emulated reads the emulated machine", ("quickstart", "--meter", "emulated")),
    ]


def test_bad_usage_is_refused_with_a_way_out(
    tmp_path: Path, database: str, workload: str, printer: str
) -> None:
    """Each wrong word: its exit code, its message, no traceback, and nothing stored changed."""
    good("run", workload, *EMULATED, "--db", database)
    before = stored_rows(database)
    for code, message, arguments in bad_arguments(tmp_path, printer):
        done = called("run", *arguments, "--db", database)
        assert message in done.stderr, (arguments, done.stderr)
        assert done.returncode == code, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
    assert stored_rows(database) == before


def test_bad_databases(tmp_path: Path, workload: str) -> None:
    """A text, a folder that cannot be, a newer schema: refused, and left as they were."""
    text = tmp_path / "notes.sqlite"
    text.write_text("not a database at all, only a note of some length")
    newer = tmp_path / "newer.sqlite"
    engine = connect(database_url(str(newer)), create=True)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    for path, message in (
        (text, "not a readable SQLite database"),
        (text / "below.sqlite", "not a folder that can be written"),
        (newer, "newer wattbench"),
    ):
        done = called("run", workload, *EMULATED, "--db", str(path))
        assert done.returncode == 1, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert text.read_text().startswith("not a database")


def test_debug_lets_the_error_through(workload: str) -> None:
    """--debug may stand anywhere; Python shows the traceback then."""
    with pytest.raises(UsageError, match="--hardware"):
        called("run", workload, "--backend", "emulated", "--debug")


def test_key_of_a_server_is_stored_nowhere(database: str, workload: str) -> None:
    """Neither the key nor the query of a URL reaches the output or the database."""
    url = f"http://127.0.0.1:{closed_port()}/v1?key=SECRETQUERY"
    arguments = ("run", workload, "--backend", f"openai,url={url}", "--db", database)
    done = called(*arguments, OPENAI_API_KEY="SECRETKEY")
    assert done.returncode == 1
    assert "SECRET" not in done.stderr + done.stdout


def test_ctrl_c_keeps_what_was_measured(database: str, workload: str) -> None:
    """SIGINT in a real-time run: exit code 130, the way to look at it, and the run is there."""
    long = Path(workload)
    long.write_text(SHORT.replace("duration_s: 1.5", "duration_s: 60"))
    backend = ("--backend", "emulated,time=real", "--hardware", "h100-sxm")
    command = [sys.executable, "-m", "wattbench", "run", str(long), *backend, "--db", database]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline_s = time.monotonic() + 20
    while not (Path(database).exists() and stored_requests(database)):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "wattbench show" in err
    assert "interrupted" in out
    (point,) = json.loads(good("show", "latest", "--db", database, "--json"))["points"]
    assert "interrupted" in {finding["code"] for finding in point["findings"]}
    assert stored_requests(database) > 0


def stored_requests(database: str) -> int:
    engine = sa.create_engine(f"sqlite:///{database}")
    try:
        with engine.connect() as connection:
            return int(connection.scalar(sa.text("SELECT count(*) FROM requests")) or 0)
    except sa.exc.OperationalError:
        return 0
    finally:
        engine.dispose()
