"""Which devices are charged: by the engine's processes, by name, by role."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import called
from wire import codes, emulated, run_point

from wattbench.backends.openai import OpenAIBackend, OpenAIOptions
from wattbench.cli.sensors import auto_meters
from wattbench.plugins import PluginContext

WATTS = (400.0, 90.0, 300.0)
"""Power of three recorded GPUs [W]; they know nothing of the load."""
TIME_S = np.arange(0.0, 60.0, 0.1)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """An engine's URL, and a recording of three GPUs on the first of which its process runs."""
    with emulated("h100-sxm") as (url, server):
        path = tmp_path_factory.mktemp("nvml") / "host.json"
        devices = [
            {
                "uuid": f"GPU-{index}",
                "name": "NVIDIA H100 80GB HBM3",
                "process_ids": [[server.pid, 99_999], [99_998], []][index],
                "trace": {
                    "time_s": TIME_S.tolist(),
                    "energy_joules": (1e6 + watts * TIME_S).tolist(),
                },
            }
            for index, watts in enumerate(WATTS)
        ]
        path.write_text(json.dumps({"devices": devices}))
        yield url, f"nvml,recording={path}"


def run(host: tuple[str, str], folder: Path, *more: str) -> dict[str, Any]:
    return run_point(folder, *host, duration_s=1.5, idle_s=0.0, more=more)


def mean_watts(share: dict[str, Any], point: dict[str, Any]) -> float:
    return float(share["gross_joules"]["value"] / point["window"]["duration_s"])


def test_the_used_device_is_charged_and_its_neighbours_stand_apart(
    host: tuple[str, str], tmp_path: Path
) -> None:
    """J/token counts the GPU with the engine's process; the host total says what it leaves out."""
    point = run(host, tmp_path)
    energy = point["energy"]
    assert energy["headline"]["devices"] == ["GPU-0"]
    assert mean_watts(energy["headline"], point) == pytest.approx(400, rel=0.03)
    assert energy["idle_neighbours"]["devices"] == ["GPU-1", "GPU-2"]
    assert mean_watts(energy["idle_neighbours"], point) == pytest.approx(390, rel=0.03)
    assert mean_watts(energy["host_total"], point) == pytest.approx(790, rel=0.03)
    per_token = point["metrics"]["energy_per_output_token_joules"]["value"]
    tokens_per_s = point["metrics"]["output_tokens_per_s"]["value"]
    assert per_token * tokens_per_s == pytest.approx(400, rel=0.02)
    # A process that is not the engine's ran on the GPU that is charged.
    assert {"idle_neighbours", "foreign_process"} <= codes(point)


def test_named_devices_are_taken_at_their_word(host: tuple[str, str], tmp_path: Path) -> None:
    point = run(host, tmp_path, "--devices", "GPU-1,2")
    assert point["energy"]["headline"]["devices"] == ["GPU-1", "GPU-2"]
    assert mean_watts(point["energy"]["headline"], point) == pytest.approx(390, rel=0.03)
    # The engine's process ran on GPU-0, whatever was named.
    assert "working_device_left_out" in codes(point)


def test_roles_keep_their_joules_apart(host: tuple[str, str], tmp_path: Path) -> None:
    point = run(host, tmp_path, "--role", "prefill=0", "--role", "decode=1-2")
    roles = point["energy"]["roles"]
    assert mean_watts(roles["prefill"], point) == pytest.approx(400, rel=0.03)
    assert mean_watts(roles["decode"], point) == pytest.approx(390, rel=0.03)
    assert point["energy"]["idle_neighbours"] is None
    assert mean_watts(point["energy"]["headline"], point) == pytest.approx(790, rel=0.03)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("prefill", "is not ROLE=[HOST:]ID"),
        ("prefill=", "is not ROLE=[HOST:]ID"),
        ("prefill=0,0", "is not ROLE=[HOST:]ID"),
        ("prefill=7", "device '7' is not measured"),
        ("prefill=node1:0", "device 'node1/0' is not measured"),
    ],
)
def test_a_role_that_means_nothing(
    host: tuple[str, str], tmp_path: Path, argument: str, message: str
) -> None:
    url, meter = host
    place = ("--backend", f"openai,url={url}/v1", "--meter", meter, "--db", f"{tmp_path}/x.db")
    done = called("run", "quickstart", "--role", argument, *place)
    assert done.returncode == 2
    assert message in done.stderr


def test_auto_takes_no_meter_for_an_engine_elsewhere() -> None:
    """Nothing here knows the watts of another host; for an engine here there is always one."""
    context = PluginContext(hardware=None, seed=0)
    options = {name: OpenAIOptions(url=f"http://{name}/v1") for name in ("192.0.2.1", "localhost")}
    assert auto_meters(OpenAIBackend(options["192.0.2.1"], context)) == []
    assert auto_meters(OpenAIBackend(options["localhost"], context))
