"""Each foreign server measured through the command line; run by ``make test-engines`` only."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engine_list import ENGINES, Engine
from openai_client import a_client

from wattbench.backends.openai_lengths import Calibration, asker
from wattbench.backends.openai_wire import PATHS, Api, request_body
from wattbench.backends.server_process import ServerProcess, free_port
from wattbench.core.load import InferenceRequest, Message, Role
from wattbench.core.run import RawRun
from wattbench.store import connect, database_url, load_run

WORKLOAD = """
name: engines
about: Short answers, so that two cores give dozens of them.
session:
  turns: {kind: uniform, low: 1, high: 2}
  input_tokens: {kind: uniform, low: 16, high: 48}
  output_tokens: {kind: uniform, low: 12, high: 32}
arrivals: {kind: closed, concurrency: [2]}
idle_s: 2.0
warmup: {duration_s: 3.0, requests_per_user: 2}
measure: {duration_s: 25.0}
seed: 1
"""


LOADED = {"client_lag", "not_steady"}
"""Doubts that other work on this machine raises, whatever the server does."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_measured(engine: Engine, api: str, tmp_path: Path) -> None:
    """A run is valid, every request is whole, and the server's own counts are in the record."""
    workload, database = tmp_path / "engines.yaml", tmp_path / "engines.sqlite"
    workload.write_text(WORKLOAD, encoding="utf-8")
    backend = f"openai,url=http://127.0.0.1:{{port}}/v1,api={api}"
    backend += f",model={engine.model}" if engine.model else ""
    options = ["--backend", backend, "--serve", engine.serve, "--serve-timeout-s", "240"]
    options += ["--meter", "cpu-load"]
    _wattbench(engine, "run", str(workload), *options, "--db", str(database), "--json")
    shown = _wattbench(engine, "show", "latest", "--db", str(database), "--json")
    (engine.folder / f"show-{api}.json").write_text(json.dumps(shown, indent=1), encoding="utf-8")

    (point,) = shown["points"]
    doubts = {
        found["code"]: found["message"]
        for found in point["findings"]
        if found["severity"] != "info" and found["scope"] != "energy"
    }
    assert {code: text for code, text in doubts.items() if code not in LOADED} == {}
    assert point["requests"]["failed"] == 0
    assert point["requests"]["completed"] > 0
    assert point["tokens"]["source"] == "usage"
    assert point["metrics"]["energy_per_output_token_joules"]["value"] > 0
    if engine.tells_state:
        assert point["server"]["requests_running_count"] > 0
    else:
        assert point["server"] is None
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        assert point["metrics"][name]["p50"]["value"] > 0
    _check_requests(
        load_run(connect(database_url(str(database)), create=False), point["run_ids"][0]), engine
    )


def _check_requests(run: RawRun, engine: Engine) -> None:
    detail = run.record.engine.detail
    assert detail["prompt_lengths"] == engine.prompt_lengths
    assert detail["ignore_eos"] is engine.takes_ignore_eos
    for result in run.requests:
        assert result.succeeded, result.error_text
        assert result.tokens_source == "usage"
        assert result.input_tokens
        assert result.output_tokens == result.request.max_output_tokens
        # A random model may answer in special tokens alone, which have no text.
        if result.output_bytes is not None:
            # Stamps of chunks are stored to the nanosecond.
            end_s = result.end_s + 1e-8
            assert result.sent_s < result.chunk_s[0] < result.chunk_s[-1] <= end_s


@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_lengths(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts have as many tokens, by the server's own count, as were asked for."""
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    counted = asyncio.run(_counted(engine, tmp_path / "log"))
    kept = engine.folder / "lengths.json"
    kept.write_text(json.dumps(counted), encoding="utf-8")
    tolerance = 0.0 if engine.prompt_lengths == "tokenize" else 0.2
    for api, wanted, tokens in counted:
        assert tokens == pytest.approx(wanted, rel=tolerance, abs=0.5), (api, counted)


async def _counted(engine: Engine, log: Path) -> list[tuple[str, int, int]]:
    """API, tokens asked for and tokens counted by the server, of several prompts."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    server = ServerProcess(engine.serve.format(port=port), f"{url}/models", log, 240.0)
    apis: tuple[Api, ...] = ("chat", "completions")
    rows: list[tuple[str, int, int]] = []
    await server.start_s()
    try:
        async with a_client(url) as client:
            for api in apis:
                ask = asker(client, f"/v1/{PATHS[api]}", {})
                model = engine.model or "demo"
                lengths = await Calibration(ask, model, api).lengths("auto")
                for parts in ((40,), (97,), (200,), (30, 50, 70)):
                    body = request_body(_prompt(parts), model, api, lengths)
                    body |= {"stream": False}
                    del body["stream_options"]
                    status, answer = await ask("generate", body)
                    assert status == 200, answer
                    assert isinstance(answer, dict)
                    usage = answer["usage"]
                    assert isinstance(usage, dict)
                    rows.append((api, sum(parts), int(str(usage["prompt_tokens"]))))
    finally:
        await server.stop()
    return rows


def _prompt(parts: tuple[int, ...]) -> InferenceRequest:
    roles: tuple[Role, ...] = ("user", "assistant", "user")
    messages = [
        Message(role=role, tokens=tokens, seed=tokens)
        for role, tokens in zip(roles, parts, strict=False)
    ]
    return InferenceRequest(
        index=0, session_index=0, turn_index=0, messages=tuple(messages), max_output_tokens=1
    )


def _wattbench(engine: Engine, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "wattbench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | dict(engine.environment),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found
