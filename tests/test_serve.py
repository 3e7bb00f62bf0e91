"""Servers that a run starts itself: started, waited for, stopped, and their logs kept."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from wire import workload_file

from wattbench.backends.server_process import ServerProcess, filled, free_port, without_secrets
from wattbench.core.errors import BackendError, UsageError

SLEEPER = """
import http.server, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
print("loading weights", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_per_swept_value(tmp_path: Path) -> None:
    """Both values are measured on servers of their own; the one that cannot start costs itself."""
    workload = workload_file(tmp_path, 1.5, 0.3)
    command = [sys.executable, "-m", "wattbench", "run", str(workload), "--json"]
    command += ["--serve", f"{sys.executable} -m wattbench emulate {{machine}} --port {{port}}"]
    command += ["--sweep", "serve.machine=h100-sxm,nope,cerebras-cs3"]
    command += ["--backend", "openai,url=http://127.0.0.1:{port}/v1"]
    command += ["--meter", "prometheus,url=http://127.0.0.1:{port}/metrics"]
    command += ["--db", str(tmp_path / "x.db"), "--hardware", "h100-sxm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1
    assert "the server ended with exit code" in done.stderr
    assert "hardware profile 'nope'" in done.stderr
    points: list[dict[str, Any]] = json.loads(done.stdout)["points"]
    machines = [point["operating_point"]["serve.machine"] for point in points]
    assert machines == ["h100-sxm", "cerebras-cs3"]
    first, second = (point["metrics"]["tpot_s"]["p50"]["value"] for point in points)
    assert first > 5 * second
    assert all(point["energy"]["headline"]["gross_joules"]["value"] > 0 for point in points)
    logs = sorted((tmp_path / "wattbench-logs").iterdir())
    assert [log.read_text().startswith("ready ") for log in logs] == [True, False, True]


def test_it_ends_with_everything_that_it_started(tmp_path: Path) -> None:
    source = tmp_path / "server.py"
    source.write_text(SLEEPER)
    port = free_port()
    command = f"{sys.executable} {source} {port}"

    async def start_and_stop() -> list[psutil.Process]:
        server = ServerProcess(command, f"http://127.0.0.1:{port}", tmp_path / "log", 30.0)
        assert await server.start_s() > 0
        assert server._process is not None
        root = psutil.Process(server._process.pid)
        family = [root, *root.children(recursive=True)]
        assert len(family) == 2
        await server.stop()
        return family

    family = asyncio.run(start_and_stop())
    deadline_s = time.monotonic() + 5
    while any(_runs(one) for one in family) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not any(_runs(one) for one in family)
    assert (tmp_path / "log").read_text() == "loading weights\n"


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def refusal(command: str, log: Path, timeout_s: float = 30.0) -> str:
    server = ServerProcess(command, f"http://127.0.0.1:{free_port()}", log, timeout_s)
    with pytest.raises(BackendError) as refused:
        asyncio.run(server.start_s())
    return str(refused.value)


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "cannot start 'no-such-server'" in refusal("no-such-server --port 1", log)
    text = "print('CUDA out of memory, --api-key sk-123'); raise SystemExit(4)"
    said = refusal(f'{sys.executable} -c "{text}"', log)
    assert "exit code 4" in said
    assert "CUDA out of memory" in said
    assert "sk-123" not in said
    said = refusal(f'{sys.executable} -c "import time; time.sleep(60)"', log, 0.6)
    assert "does not answer" in said


def test_a_template_names_its_fields() -> None:
    assert (
        filled("serve -tp {tp} --port {port}", {"tp": "2", "port": "1"}) == "serve -tp 2 --port 1"
    )
    assert filled('serve --json {{"a":1}}', {}) == 'serve --json {"a":1}'
    with pytest.raises(UsageError, match=r"\{prt\} has no value; did you mean 'port'"):
        filled("serve --port {prt}", {"tp": "2", "port": "1"})
    with pytest.raises(UsageError, match="for braces"):
        filled("serve {", {})


def test_secrets_of_a_command_are_not_kept() -> None:
    shown = without_secrets("vllm serve m --api-key sk-1 --hf-token=hf_2 --port 1")
    assert shown == "vllm serve m --api-key … --hf-token=… --port 1"
