"""The agent on another host: its meters, its clock, its secrets, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import called
from hypothesis import given
from hypothesis import strategies as st
from wire import codes, emulated, run_point, true_joules

from wattbench.core.energy import CounterTrace
from wattbench.core.errors import MeterError
from wattbench.meters.agent import AgentMeter, AgentOptions, ClockOffset
from wattbench.meters.agent_wire import TOKEN_ENV
from wattbench.plugins import PluginContext
from wattbench.testing import check_meter, record_meter

TIME_S = np.arange(0.0, 60.0, 0.1)


@contextlib.contextmanager
def agent(*arguments: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`wattbench agent` on a free port: its URL and its process."""
    command = [sys.executable, "-m", "wattbench", "agent", "--port", "0", *arguments]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        assert server.stdout is not None
        word, url = server.stdout.readline().split()
        assert word == "ready"
        yield url, server
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert server.stdout is not None
        server.stdout.close()


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recorded GPU of 300 W that is lost after a minute, as a meter."""
    path = tmp_path_factory.mktemp("nvml") / "gpus.json"
    trace = {"time_s": TIME_S.tolist(), "energy_joules": (1e6 + 300 * TIME_S).tolist()}
    device = {"uuid": "GPU-0", "name": "NVIDIA H100 80GB HBM3", "trace": trace}
    path.write_text(json.dumps({"devices": [device]}))
    return f"nvml,recording={path}"


def meter(url: str, **options: str) -> AgentMeter:
    return AgentMeter(AgentOptions(url=url, **options), PluginContext(hardware=None, seed=0))  # type: ignore[arg-type]


def test_it_keeps_the_contract_whatever_its_clock(gpus: str) -> None:
    with agent("--meter", gpus, "--skew-s", "0.3") as (url, _):
        traces = check_meter(AgentMeter, AgentOptions(url=url, name="node1"), duration_s=1.5)
    (trace,) = traces.values()
    assert isinstance(trace, CounterTrace)
    assert trace.domain.name == "node1/gpu:0"
    assert trace.domain.host == "node1"
    assert 0 < trace.domain.clock_half_width_s < 0.1
    assert trace.domain.covers("node1/0")
    assert not trace.domain.covers("node2/0")


@contextlib.contextmanager
def logged(url: str, path: Path) -> Iterator[None]:
    """Somebody else's logger: the counter of an exporter, with Unix times, five times an update."""
    done = threading.Event()

    def write() -> None:
        with path.open("w") as log:
            log.write("time_unix_s,energy_joules\n")
            while not done.wait(0.02):
                with urllib.request.urlopen(f"{url}/metrics", timeout=5) as page:
                    (line,) = (
                        one
                        for one in page.read().decode().splitlines()
                        if one.startswith("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{")
                    )
                log.write(f"{time.time():.6f},{float(line.split()[-1]) / 1e3:.6f}\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def attached(folder: Path, log: Path) -> dict[str, Any]:
    """The run's only point, with a log added to it."""
    place = ("--db", str(folder / "runs.sqlite"), "--json")
    attach = ("attach", "latest", "--log", str(log), "--name", "logged", "--boundary", "board")
    assert not called(*attach, *place).returncode
    done = called("show", "latest", *place)
    (point,) = json.loads(done.stdout)["points"]
    return dict(point)


def test_three_ways_to_the_same_joules(tmp_path: Path) -> None:
    """A page, an agent that reads it 0.3 s off, a log imported later: all cover the truth."""
    log = tmp_path / "log.csv"
    with emulated("h100-sxm") as (url, _):
        page = f"prometheus,url={url}/metrics"
        with agent("--meter", page, "--skew-s", "0.3") as (agent_url, _), logged(url, log):
            remote = f"agent,url={agent_url},name=node1"
            point = run_point(tmp_path, url, page, remote, duration_s=5.3)
        truth = true_joules(url, point)
    point = attached(tmp_path, log)
    found = {d["domain"]: d["gross_joules"] for d in point["energy"]["domains"]}
    ways = [found["gpu:0"], found["node1/gpu:0"], found["logged"]]
    for gross in ways:
        assert gross["low"] <= truth <= gross["high"]
        assert gross["value"] == pytest.approx(truth, rel=0.01)
    assert max(way["low"] for way in ways) <= min(way["high"] for way in ways)
    clock = next(detail for kind, detail in _events(tmp_path) if kind == "agent_clock")
    assert clock["wall_offset_s"] == pytest.approx(0.3, abs=0.05)
    assert "meter_not_on_engine_host" not in codes(point)


def test_one_gpu_under_two_names_is_charged_once(gpus: str, tmp_path: Path) -> None:
    """Two agents on one host see the same UUID: its joules count once, and a finding says so."""
    with emulated("h100-sxm") as (url, _), agent("--meter", gpus) as (one, _):
        meters = (f"agent,url={one},name=a", f"agent,url={one},name=b")
        point = run_point(tmp_path, url, *meters, duration_s=1.2, idle_s=0.0)
    watts = point["energy"]["headline"]["gross_joules"]["value"] / point["window"]["duration_s"]
    assert watts == pytest.approx(300, rel=0.02)
    assert "measured_twice" in codes(point)


def test_roles_over_two_agents(gpus: str, tmp_path: Path) -> None:
    """Prefill on one host and decode on the other: their joules apart, and both charged."""
    other = tmp_path / "other.json"
    other.write_text(Path(gpus.partition("=")[2]).read_text().replace("GPU-0", "GPU-1"))
    with (
        emulated("h100-sxm") as (url, _),
        agent("--meter", gpus) as (first, _),
        agent("--meter", f"nvml,recording={other}") as (second, _),
    ):
        point = run_point(
            tmp_path,
            url,
            f"agent,url={first},name=node1",
            f"agent,url={second},name=node2",
            duration_s=1.5,
            idle_s=0.0,
            more=("--role", "prefill=node1:0", "--role", "decode=node2:0"),
        )
    energy, duration_s = point["energy"], point["window"]["duration_s"]
    for role, host in (("prefill", "node1"), ("decode", "node2")):
        assert energy["roles"][role]["domain"] == f"{host}/gpu:0"
        watts = energy["roles"][role]["gross_joules"]["value"] / duration_s
        assert watts == pytest.approx(300, rel=0.02)
    assert energy["headline"]["gross_joules"]["value"] == pytest.approx(600 * duration_s, rel=0.02)


def _events(folder: Path) -> list[tuple[str, dict[str, float]]]:
    import sqlite3

    with contextlib.closing(sqlite3.connect(folder / "runs.sqlite")) as database:
        rows = database.execute("SELECT kind, detail FROM events").fetchall()
    return [(kind, json.loads(detail)) for kind, detail in rows]


def test_without_the_token_nothing_is_told(gpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with agent("--meter", gpus, **{TOKEN_ENV: "sesame"}) as (url, _):
        monkeypatch.setenv(TOKEN_ENV, "wrong")
        with pytest.raises(MeterError, match="wants another token") as refused:
            record_meter(meter(url), 0.1)
        assert "wrong" not in str(refused.value)
        assert "sesame" not in str(refused.value)
        monkeypatch.setenv(TOKEN_ENV, "sesame")
        assert record_meter(meter(url), 0.1).domains


def test_it_does_not_open_itself_to_the_network_without_a_token(gpus: str) -> None:
    command = [sys.executable, "-m", "wattbench", "agent", "--host", "192.0.2.1", "--meter", gpus]
    environment = {k: v for k, v in os.environ.items() if k != TOKEN_ENV}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "there is no token" in done.stderr


def test_an_agent_that_goes_away_is_a_failed_meter(gpus: str) -> None:
    with agent("--meter", gpus) as (url, server):
        watched = meter(url, name="node1")

        def stop_it() -> None:
            server.send_signal(signal.SIGTERM)
            server.wait(10)

        with pytest.raises(MeterError, match="went away"):
            _record_and(watched, stop_it)


def _record_and(watched: AgentMeter, act: object) -> None:
    import asyncio

    from wattbench.testing import MemorySink

    async def go() -> None:
        await watched.start(MemorySink())
        assert callable(act)
        await asyncio.to_thread(act)
        await watched.stop()

    asyncio.run(go())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:1"])
def test_nobody_there_says_how_to_start_one(url: str) -> None:
    with pytest.raises(MeterError, match="no agent answers") as refused:
        record_meter(meter(url), 0.1)
    assert "wattbench agent --port" in (refused.value.fix or "")


def test_another_server_is_no_agent() -> None:
    with emulated("h100-sxm") as (url, _), pytest.raises(MeterError, match="that is no agent"):
        record_meter(meter(url), 0.1)


def test_a_meter_that_cannot_start_over_there_says_why(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    path.write_text(json.dumps({"devices": []}))
    with (
        agent("--meter", f"nvml,recording={path}") as (url, _),
        pytest.raises(MeterError, match="shows no GPU"),
    ):
        record_meter(meter(url), 0.1)


@given(
    offset_s=st.floats(-1e4, 1e4),
    trips=st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)), min_size=1, max_size=30),
)
def test_the_offset_lies_within_its_half_width(
    offset_s: float, trips: list[tuple[float, float]]
) -> None:
    """Whatever way and way back take, the true offset is inside: that is the trips' law."""
    found, now_s = ClockOffset(), 0.0
    for there_s, back_s in trips:
        left_s, met_s = now_s, now_s + there_s
        now_s = met_s + back_s
        found.trip(left_s, met_s + offset_s, now_s)
        assert abs(found.offset_s - offset_s) <= found.half_width_at_s(now_s) + 1e-9
    assert found.half_width_s <= min(sum(trip) for trip in trips) / 2 + 50e-6 * now_s + 1e-9
