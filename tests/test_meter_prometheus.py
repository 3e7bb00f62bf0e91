"""Pages of DCGM and Kepler, and queries: what is read, what is noticed, what is in the way."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from page_server import serving

from wattbench.core.energy import CounterTrace, PowerTrace
from wattbench.core.errors import InsufficientCoverage, MeterError
from wattbench.energy import cleaned, measure
from wattbench.meters.prometheus import PrometheusMeter, PrometheusOptions
from wattbench.plugins import PluginContext
from wattbench.testing import MemorySink, check_meter

CONTEXT = PluginContext(hardware=None, seed=0)
UPDATE_S = 0.1
SECRET = "c0rrect-horse"  # noqa: S105 - it guards nothing


def ticks_s() -> float:
    """Time at which the sensors behind a page were last new [s]."""
    return math.floor(time.monotonic() / UPDATE_S) * UPDATE_S


def dcgm(*watts: float, energy: bool = True, more: str = "", stamp: str = "") -> str:
    """A page of NVIDIA's exporter for as many GPUs as powers are given."""
    lines = ["# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).", "DCGM_FI_DEV_SM_CLOCK 1980"]
    for gpu, power in enumerate(watts):
        labels = f'{{gpu="{gpu}",UUID="GPU-{gpu}",modelName="NVIDIA \\"H100\\", 80GB"}}'
        lines.append(f"DCGM_FI_DEV_POWER_USAGE{labels} {power}{stamp}")
        if energy:
            millijoules = round(1e9 + power * ticks_s() * 1e3)
            lines.append(f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{labels} {millijoules}{stamp}")
    return "\n".join([*lines, more]) + "\n"


def kepler(**watts: float) -> str:
    """A page of Kepler, with the zones that are given."""
    name = "kepler_node_cpu_joules_total"
    lines = [f"# TYPE {name} counter"] + [
        f'{name}{{node_name="n1",path="/sys/{zone}",zone="{zone}"}} {500 + power * ticks_s():.3f}'
        for zone, power in watts.items()
    ]
    return "\n".join([*lines, "kepler_node_cpu_watts 3"]) + "\n"


def answered(*series: tuple[dict[str, str], float]) -> str:
    """The answer of a Prometheus server to a query."""
    result = [{"metric": labels, "value": [time.time(), str(value)]} for labels, value in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def opened(url: str, **options: Any) -> Any:
    return PrometheusMeter(PrometheusOptions(url=url, **options), CONTEXT).open_source()


def watts_of(trace: Any) -> float:
    """Mean power by the meter's own samples, their ends left out."""
    start_s, end_s = float(trace.time_s[0]) + 0.2, float(trace.time_s[-1]) - 0.2
    return measure(trace, start_s, end_s).energy_joules / (end_s - start_s)


def test_two_gpus_of_dcgm_keep_the_contract() -> None:
    with serving(lambda: dcgm(300.0, 90.0)) as server:
        options = PrometheusOptions(url=f"{server.url}/metrics")
        traces = check_meter(PrometheusMeter, options, duration_s=1.2)
    assert set(traces) == {"gpu:0", "gpu:0/power", "gpu:1", "gpu:1/power"}
    for gpu, watts in ((0, 300.0), (1, 90.0)):
        counter, power = traces[f"gpu:{gpu}"], traces[f"gpu:{gpu}/power"]
        assert isinstance(counter, CounterTrace)
        assert isinstance(power, PowerTrace)
        assert counter.domain.devices == power.domain.devices == (f"GPU-{gpu}",)
        assert counter.domain.update_period_s == pytest.approx(UPDATE_S, rel=0.3)
        assert (counter.domain.kind, power.domain.parent) == ("counter", f"gpu:{gpu}")
        assert watts_of(counter) == pytest.approx(watts, rel=0.12)
        assert watts_of(power) == pytest.approx(watts, rel=1e-6)


def test_power_alone_is_the_gpu() -> None:
    with serving(lambda: dcgm(300.0, energy=False)) as server:
        (domain,) = opened(server.url).domains
    assert (domain.name, domain.kind, domain.parent) == ("gpu:0", "integrated", None)


@pytest.mark.parametrize("blank", ["9223372036854775794", "NaN"])
def test_a_counter_that_dcgm_lacks_is_none(blank: str) -> None:
    """DCGM marks a missing value by a number near 2^63; then there is the power."""
    line = f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0"}} {blank}'
    with serving(lambda: dcgm(300.0, energy=False, more=line)) as server:
        source = opened(server.url)
        assert [domain.name for domain in source.domains] == ["gpu:0"]
        server.page = lambda: dcgm(140737488355328.0, energy=False)
        assert source.read(time.monotonic) == []


def test_zones_of_kepler_keep_the_contract() -> None:
    """The cores lie inside the package, the memory beside it; psys would count both again."""
    zones = {"package": 40.0, "core": 25.0, "dram": 5.0, "psys": 70.0}
    with serving(lambda: kepler(**zones)) as server:
        traces = check_meter(PrometheusMeter, PrometheusOptions(url=server.url), duration_s=1.0)
    parents = {name: trace.domain.parent for name, trace in traces.items()}
    assert parents == {"cpu:package": None, "cpu:core": "cpu:package", "cpu:dram": None}
    for zone in ("package", "core", "dram"):
        trace = traces[f"cpu:{zone}"]
        assert (trace.domain.boundary, trace.domain.kind) == ("package", "counter")
        assert watts_of(trace) == pytest.approx(zones[zone], rel=0.25)


def test_zones_without_a_package_stand_alone() -> None:
    with serving(lambda: kepler(core=25.0, psys=70.0)) as server:
        parents = {domain.name: domain.parent for domain in opened(server.url).domains}
    assert parents == {"cpu:core": None, "cpu:psys": None}


def test_a_query_names_devices_by_the_label() -> None:
    def page() -> str:
        return answered(*(({"gpu": "0", "Hostname": f"n{n}"}, 250.0 + n) for n in (1, 2)))

    with serving(page) as server:
        options = PrometheusOptions(
            url=f"{server.url}/",
            query='power{job="a b"}',
            label="Hostname",
            boundary="node",
            period_s=0.05,
        )
        traces = check_meter(PrometheusMeter, options, duration_s=0.2)
        assert set(server.paths) == {"/api/v1/query?query=power%7Bjob%3D%22a%20b%22%7D"}
    assert set(traces) == {"n1", "n2"}
    trace = traces["n2"]
    assert isinstance(trace, PowerTrace)
    assert (trace.domain.kind, trace.domain.boundary) == ("integrated", "node")
    assert (trace.power_watts == 252.0).all()


def test_a_query_of_energy_is_a_counter_in_its_unit() -> None:
    with serving(lambda: answered(({}, 2.5))) as server:
        source = opened(server.url, query="sum(e)", quantity="energy", scale=3.6e6)
        (reading,) = source.read(time.monotonic)
    assert (source.domains[0].name, source.domains[0].kind) == ("0", "counter")
    assert reading.value == 9e6


@pytest.mark.parametrize(
    ("page", "options", "reason", "fix"),
    [
        ("up 1\n", {}, "answers, but has neither", "Kepler"),
        ("", {}, "answers, but has neither", "Kepler"),
        (answered(), {"query": "x"}, "query 'x' of .* is empty", "/graph"),
        (answered(({"a": "1"}, math.nan)), {"query": "x"}, "is empty", "/graph"),
        ("<html>", {"query": "x"}, "is not a Prometheus server: '<html>'", "/graph"),
        (
            answered(({"gpu": "0", "UUID": "a"}, 1), ({"gpu": "0", "UUID": "b"}, 2)),
            {"query": "x"},
            "2 series of .* are called '0'",
            "label=",
        ),
        (dcgm(9.0) + dcgm(9.0), {}, "2 series of .* are called '0'", "label="),
        (answered(({"gpu": "0"}, 1)), {"query": "x", "label": "uuid"}, "no label 'uuid'", "gpu"),
    ],
)
def test_what_answers_and_cannot_be_used(
    page: str, options: dict[str, Any], reason: str, fix: str
) -> None:
    with serving(lambda: page) as server, pytest.raises(MeterError, match=reason) as refused:
        opened(server.url, **options)
    assert fix in (refused.value.fix or "")


@pytest.mark.parametrize("status", [401, 403])
def test_no_permission_names_the_login(status: int) -> None:
    with serving(lambda: "") as server:
        server.status = status
        with pytest.raises(MeterError, match="refuses a reader without a login") as refused:
            opened(f"{server.url}/metrics?key={SECRET}")
    assert "read -rs PROMETHEUS_PASSWORD" in (refused.value.fix or "")
    assert SECRET not in str(refused.value)


def test_another_status_is_named() -> None:
    with serving(lambda: "") as server:
        server.status = 404
        with pytest.raises(MeterError, match="answers with HTTP 404") as refused:
            opened(server.url)
    assert "Name the exporter's page" in (refused.value.fix or "")


def test_absent() -> None:
    with serving(lambda: "") as server:
        url = server.url
    with pytest.raises(MeterError, match=f"{url}/ does not answer: .*refused") as refused:
        opened(url)
    assert "Name the exporter's page" in (refused.value.fix or "")


def test_a_login_opens_the_page_and_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda: dcgm(300.0)) as server:
        server.login = f"reader:{SECRET}"
        with pytest.raises(MeterError, match="PROMETHEUS_PASSWORD, for the password of reader"):
            opened(server.url, user="reader")
        monkeypatch.setenv("PROMETHEUS_PASSWORD", SECRET + "x")
        with pytest.raises(MeterError, match="refuses user reader") as refused:
            opened(server.url, user="reader")
        assert SECRET not in str(refused.value)
        monkeypatch.setenv("PROMETHEUS_PASSWORD", SECRET)
        assert SECRET not in str(opened(server.url, user="reader").domains)


@pytest.mark.parametrize(
    ("url", "options", "complaint"),
    [
        (f"http://reader:{SECRET}@127.0.0.1:9400/metrics", {}, "must hold no login"),
        (f"ftp://reader:{SECRET}@host/metrics", {}, "must begin with http"),
        (f"http://reader:{SECRET}@host:port/metrics", {}, "must be like"),
        (f"http://reader:{SECRET}@[::1/metrics", {}, "must be like"),
        ("http://bmc.example/metrics", {"user": "reader"}, "in clear"),
        ("host:9400", {}, "must begin with http"),
    ],
)
def test_a_password_in_the_url_is_refused_and_not_shown(
    url: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        PrometheusOptions(url=url, **options)
    assert SECRET not in str(refused.value)
    assert PrometheusOptions(url="http://bmc.example", user="reader", insecure=True)


def test_a_server_that_disappears_keeps_what_was_read() -> None:
    """The meter has failed, and says since when; the samples before are whole."""
    with serving(lambda: dcgm(300.0)) as server:

        async def run() -> MemorySink:
            sink = MemorySink()
            meter = PrometheusMeter(PrometheusOptions(url=server.url), CONTEXT)
            await meter.start(sink)
            await asyncio.sleep(0.4)
            await asyncio.to_thread(server.close)
            await asyncio.sleep(0.2)
            with pytest.raises(MeterError, match=r"does not answer: .* since .* s of the run"):
                await meter.stop()
            return sink

        trace = asyncio.run(run()).traces()["gpu:0"]
    assert isinstance(trace, CounterTrace)
    assert len(trace.time_s) > 3
    assert (trace.energy_joules > 0).all()


def test_a_gpu_that_disappears_leaves_the_other_whole() -> None:
    """For a while it has no value, which is no 0 and no constant."""
    back_s = math.inf

    def page() -> str:
        return dcgm(300.0) if time.monotonic() < back_s < math.inf else dcgm(300.0, 90.0)

    def lose_one() -> None:
        nonlocal back_s
        back_s = time.monotonic() + 0.3

    with serving(page) as server:
        options = PrometheusOptions(url=server.url)
        traces = check_meter(PrometheusMeter, options, duration_s=0.8, on_half=lose_one)
    kept, lost = traces["gpu:0"], traces["gpu:1"]
    assert isinstance(kept, CounterTrace)
    assert isinstance(lost, CounterTrace)
    assert np.isfinite(kept.energy_joules).all()
    assert np.isnan(lost.energy_joules).any()
    assert (lost.energy_joules[np.isfinite(lost.energy_joules)] > 1e6).all()


def test_a_counter_that_starts_again_has_no_energy() -> None:
    born_s = ticks_s() - 50.0

    def page() -> str:
        return f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0"}} {(ticks_s() - born_s) * 3e5}\n'

    def restart() -> None:
        nonlocal born_s
        born_s = ticks_s() - 1.0

    with serving(page) as server:
        options = PrometheusOptions(url=server.url)
        trace = check_meter(PrometheusMeter, options, duration_s=0.8, on_half=restart)["gpu:0"]
    with pytest.raises(InsufficientCoverage) as refused:
        measure(cleaned(trace), trace.time_s[0] + 0.1, trace.time_s[-1] - 0.1)
    assert refused.value.reason == "counter_reset"


def noted(page: Callable[[], str], kind: str) -> list[Any]:
    """Details of the events of one kind while a page is read for a moment."""
    with serving(page) as server:
        source = opened(server.url)
        end_s = time.monotonic() + 3 * UPDATE_S
        while time.monotonic() < end_s:
            source.read(time.monotonic)
        return [detail for event, detail in source.events() if event == kind]


def test_stamps_tell_the_exporters_clock() -> None:
    """By stamps that are new; one that grows old says nothing, nor does a page without any."""

    def stamped(late_s: float) -> str:
        now_s = time.time()
        unix_s = now_s - now_s % UPDATE_S + late_s
        return dcgm(300.0, stamp=f" {round(unix_s * 1000)}")

    (detail, *more) = noted(lambda: stamped(-7.0), "sensor_clock")
    assert {detail["domain"], *(each["domain"] for each in more)} == {"gpu:0", "gpu:0/power"}
    assert len(more) == 1
    assert detail["offset_s"] == pytest.approx(-7.0, abs=0.5)
    old = round(time.time() * 1000) - 20_000
    assert noted(lambda: dcgm(300.0, stamp=f" {old}"), "sensor_clock") == []
    assert noted(lambda: dcgm(300.0), "sensor_clock") == []


@pytest.mark.parametrize("name", ["CLOCK_THROTTLE_REASONS", "CLOCKS_EVENT_REASONS"])
def test_throttling_is_noted_once(name: str) -> None:
    series = f'DCGM_FI_DEV_{name}{{gpu="%d"}} %s'
    lines = [series % (0, 0x1), series % (1, 0x44), series % (2, "NaN")]
    assert noted(lambda: dcgm(300.0, more="\n".join(lines)), "throttled") == [
        {"devices": "1", "reasons": "0x44"}
    ]


def test_an_idle_clock_is_no_throttling() -> None:
    line = 'DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{gpu="0"} 1'
    assert noted(lambda: dcgm(300.0, more=line), "throttled") == []
