"""Over the wire, in real time: an emulated machine in another process, and its truth."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from wire import codes, emulated, get, performance_doubts, post, run_point


def test_energy_over_the_wire_agrees_with_the_truth(tmp_path: Path) -> None:
    """Within 1 %, inside its interval; every token counted; two devices added up."""
    with emulated("h100-sxm", "--model", "llama-3.1-70b", "--seed", "3") as (url, _):
        point = run_point(tmp_path, url, f"prometheus,url={url}/metrics")
        window = point["window"]
        true = get(f"{url}/truth?start={window['start_unix_s']}&end={window['end_unix_s']}")
    gross = point["energy"]["headline"]["gross_joules"]
    assert gross["value"] == pytest.approx(true["energy_joules"], rel=0.01)
    assert gross["low"] <= true["energy_joules"] <= gross["high"]
    assert point["tokens"]["output"] == pytest.approx(true["output_tokens"], abs=8)
    assert len(point["energy"]["headline"]["devices"]) == 4
    assert performance_doubts(point) <= {"client_lag"}
    parts = sum(true[f"{phase}_energy_joules"] for phase in ("idle", "prefill", "decode"))
    assert parts == pytest.approx(true["energy_joules"], rel=1e-9)


def kill_half_way(process: subprocess.Popen[str], folder: Path) -> None:
    """Kill some seconds after the run's records begin, however long the command took to start."""
    while not (folder / "runs.sqlite").exists():
        time.sleep(0.1)
    time.sleep(6.0)
    process.kill()


def test_dying_exporter_spoils_joules_and_nothing_else(tmp_path: Path) -> None:
    """Half-way the exporter's process is killed: energy invalid with the reason, requests whole."""
    with emulated("h100-sxm") as (engine, _), emulated("h100-sxm") as (exporter, process):
        killer = threading.Thread(target=kill_half_way, args=(process, tmp_path))
        killer.start()
        point = run_point(tmp_path, engine, f"prometheus,url={exporter}/metrics")
        killer.join()
    assert point["verdict"]["energy"] == "invalid"
    assert performance_doubts(point) <= {"client_lag"}
    assert "meter_failed" in codes(point)
    headline = point["energy"]["headline"]["gross_joules"]
    assert headline["value"] is None
    assert headline["reason"] == "not_bracketed"
    assert point["requests"]["failed"] == 0
    assert point["requests"]["completed"] > 50


def test_a_fault_is_named_over_the_wire(tmp_path: Path) -> None:
    """The exporter lies with zeros: they are left out, named, and the energy stays right."""
    with emulated("h100-sxm", "--fault", "zero,after_s=1") as (url, _):
        point = run_point(tmp_path, url, f"prometheus,url={url}/metrics")
        window = point["window"]
        true = get(f"{url}/truth?start={window['start_unix_s']}&end={window['end_unix_s']}")
    assert "zero_reading" in codes(point)
    gross = point["energy"]["headline"]["gross_joules"]
    assert gross["value"] == pytest.approx(true["energy_joules"], rel=0.01)


def test_the_api_behaves_like_a_server() -> None:
    """Models, whole and streamed answers, refusals, and the page of metrics."""
    with emulated("cerebras-cs3", "--tokens-per-chunk", "3") as (url, _):
        (model,) = get(f"{url}/v1/models")["data"]
        assert model["id"] == "llama-3.1-8b"
        body = {"prompt": "a b c", "max_tokens": 7, "ignore_eos": True}
        whole = post(f"{url}/v1/completions", body)
        assert json.loads(whole)["usage"]["completion_tokens"] == 7
        streamed = post(
            f"{url}/v1/chat/completions",
            {
                "messages": [{"role": "user", "content": "one two"}],
                "max_tokens": 7,
                "min_tokens": 7,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        )
        events = [line[6:] for line in streamed.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        parsed = [json.loads(event) for event in events[:-1]]
        assert parsed[-1]["usage"]["completion_tokens"] == 7
        texts = [c["choices"][0]["delta"].get("content") for c in parsed if c["choices"]]
        assert [len(text.split()) for text in texts] == [0, 3, 3, 1]
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(f"{url}/v1/completions", {"prompt": "a", "max_tokens": 0, "n": 3})
        page = urllib.request.urlopen(f"{url}/metrics", timeout=5).read().decode()
        assert 'DCGM_FI_DEV_POWER_USAGE{gpu="0"' in page
        assert 'vllm:num_requests_running{model_name="llama-3.1-8b"} 0' in page
