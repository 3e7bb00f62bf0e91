"""Redfish: trees of several ages, logins that leak nothing, and what is in the way."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import numpy as np
import pytest
from redfish_server import Tree, collection, link, serving

from wattbench.core.energy import EnergyDomain, PowerTrace
from wattbench.core.errors import MeterError
from wattbench.energy import measure
from wattbench.meters.redfish import RedfishMeter, RedfishOptions
from wattbench.plugins import PluginContext
from wattbench.testing import check_meter

CONTEXT = PluginContext(hardware=None, seed=0)
CHASSIS = "/redfish/v1/Chassis"
SECRET = "c0rrect horse"  # noqa: S105 - it guards nothing


def new_tree(watts: float = 800.0) -> Tree:
    """A server of today with a module inside that has power of its own, and a bay without any."""
    server, module, bay = (f"{CHASSIS}/{name}" for name in ("Server_0", "HGX_0", "Bay"))
    return {
        CHASSIS: collection(server, module, bay),
        server: {
            "ChassisType": "RackMount",
            "EnvironmentMetrics": link(f"{server}/EnvironmentMetrics"),
        },
        module: {
            "ChassisType": "Module",
            "EnvironmentMetrics": link(f"{module}/EnvironmentMetrics/"),
            "Links": {"ContainedBy": link(bay)},
        },
        bay: {"ChassisType": "Enclosure", "Links": {"ContainedBy": link(server)}},
        f"{server}/EnvironmentMetrics": metrics(watts, 12.5),
        f"{module}/EnvironmentMetrics": metrics(500.0, None),
    }


def metrics(watts: float | None, energy_kwh: float | None) -> Tree:
    return {"PowerWatts": {"Reading": watts}, "EnergykWh": {"Reading": energy_kwh}}


def old_tree() -> Tree:
    """A server of some years ago: one list of power controls, the first for the whole."""
    controls = [{"Name": "System", "PowerConsumedWatts": 310}, {"PowerConsumedWatts": 120}]
    return {
        CHASSIS: collection(f"{CHASSIS}/1"),
        f"{CHASSIS}/1": {"ChassisType": "RackMount", "Power": link(f"{CHASSIS}/1/Power/")},
        f"{CHASSIS}/1/Power": {"PowerControl": controls},
    }


def one_chassis(chassis: Tree, documents: Tree) -> Tree:
    return {CHASSIS: collection(f"{CHASSIS}/1"), f"{CHASSIS}/1": chassis, **documents}


def supplies_tree() -> Tree:
    """Two supplies and an empty bay."""
    place = f"{CHASSIS}/1/PowerSubsystem"
    units = [f"{place}/PowerSupplies/{number}" for number in range(3)]
    documents: Tree = {
        place: {"PowerSupplies": link(f"{place}/PowerSupplies")},
        f"{place}/PowerSupplies": collection(*units),
        units[2]: {"Status": {"State": "Absent"}},
    }
    for unit, watts in zip(units[:2], (150.5, 149.5), strict=True):
        documents[unit] = {"Metrics": link(f"{unit}/Metrics")}
        documents[f"{unit}/Metrics"] = {"InputPowerWatts": {"Reading": watts}}
    return one_chassis({"PowerSubsystem": link(place)}, documents)


def sensors_tree() -> Tree:
    place = f"{CHASSIS}/1/Sensors"
    names = [f"{place}/{name}" for name in ("temperature_cpu", "power_psu0", "power_total_power")]
    documents: Tree = {place: collection(*names)}
    documents |= {name: {"ReadingType": "Power", "Reading": 275.0} for name in names}
    return one_chassis({"Sensors": link(place)}, documents)


def opened(
    tree: Tree, login: str | None = None, **options: object
) -> tuple[dict[str, EnergyDomain], dict[str, float]]:
    """Domains of a service, and what it reads once."""
    with serving(tree, login=login) as server:
        meter = RedfishMeter(RedfishOptions(url=server.url, **options), CONTEXT)  # type: ignore[arg-type]
        source = meter.open_source()
        try:
            values = {reading.domain: reading.value for reading in source.read(lambda: 0.0)}
            return {domain.name: domain for domain in source.domains}, values
        finally:
            source.close()


def test_a_chassis_inside_another_is_part_of_it() -> None:
    """Also if the chassis between the two has no power; a module is no node."""
    found, values = opened(new_tree())
    server, module = "127.0.0.1/chassis:Server_0", "127.0.0.1/chassis:HGX_0"
    assert values == {server: 800.0, module: 500.0}
    assert (found[server].boundary, found[server].current) == ("node", "ac")
    assert (found[module].boundary, found[module].current) == ("module", None)
    assert (found[server].parent, found[module].parent) == (None, server)
    assert found[server].host == "127.0.0.1"
    assert found[server].covers("127.0.0.1/Server_0")


@pytest.mark.parametrize(
    ("tree", "watts"), [(old_tree(), 310.0), (supplies_tree(), 300.0), (sensors_tree(), 275.0)]
)
def test_older_trees_are_read_too(tree: Tree, watts: float) -> None:
    """A list of controls, supplies that add, a sensor of the whole."""
    found, values = opened(tree)
    assert values == {"127.0.0.1/chassis:1": watts}
    (domain,) = found.values()
    assert (domain.quantity, domain.kind, domain.boundary) == ("power", "integrated", "node")


def test_energy_is_read_where_there_is_no_power() -> None:
    tree = new_tree()
    tree[f"{CHASSIS}/Server_0/EnvironmentMetrics"] = metrics(None, 2.0)
    found, values = opened(tree)
    assert values["127.0.0.1/chassis:Server_0"] == 7.2e6
    assert found["127.0.0.1/chassis:Server_0"].kind == "counter"


def test_the_boundary_may_be_told() -> None:
    found, _ = opened(old_tree(), boundary="rack")
    assert found["127.0.0.1/chassis:1"].boundary == "rack"


def test_known_power_that_steps() -> None:
    """200 W, then 400 W: the energy of both is right within what the reads leave open."""
    with serving(new_tree(200.0)) as server:
        page = f"{CHASSIS}/Server_0/EnvironmentMetrics"
        traces = check_meter(
            RedfishMeter,
            RedfishOptions(url=server.url, period_s=0.1, update_period_s=0.2),
            duration_s=1.4,
            on_half=lambda: server.documents.update({page: metrics(400.0, None)}),
        )
    trace = traces["127.0.0.1/chassis:Server_0"]
    assert isinstance(trace, PowerTrace)
    start_s, end_s = trace.time_s[0] + 0.2, trace.time_s[-1] - 0.2
    step_s = float(trace.time_s[np.argmax(trace.power_watts > 300)])
    truth = 200.0 * (step_s - start_s) + 400.0 * (end_s - step_s)
    assert measure(trace, start_s, end_s).energy_joules == pytest.approx(truth, rel=0.15)


@pytest.mark.parametrize("gone", [["HGX_0"], ["HGX_0", "Server_0"]])
def test_what_disappears_half_way_has_no_value(gone: list[str]) -> None:
    """One chassis is NaN, not 0, while the other goes on; when all are gone the run ends."""
    with serving(new_tree()) as server:

        def vanish() -> None:
            for name in gone:
                del server.documents[f"{CHASSIS}/{name}/EnvironmentMetrics"]

        options = RedfishOptions(url=server.url, period_s=0.1, update_period_s=0.2)
        traces = check_meter(RedfishMeter, options, duration_s=0.6, on_half=vanish)
    lost = traces["127.0.0.1/chassis:HGX_0"]
    assert isinstance(lost, PowerTrace)
    assert np.isnan(lost.power_watts[-1]) or len(gone) > 1
    assert set(lost.power_watts[np.isfinite(lost.power_watts)]) == {500.0}


def test_a_password_reaches_the_server_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMC_SECRET", SECRET)
    login = {"user": "reader", "password_env": "BMC_SECRET"}
    found, values = opened(old_tree(), login=f"reader:{SECRET}", **login)
    assert values
    assert SECRET not in repr(found)
    with pytest.raises(MeterError, match="refuses user reader") as refused:
        opened(old_tree(), login="reader:another", **login)
    assert SECRET not in str(refused.value)
    assert "BMC_SECRET" in (refused.value.fix or "")
    monkeypatch.delenv("BMC_SECRET")
    with pytest.raises(MeterError, match="BMC_SECRET, for the password of reader, is not set"):
        opened(old_tree(), **login)
    with pytest.raises(MeterError, match="a reader without a login"):
        opened(old_tree(), login="reader:another")


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, "no chassis has power or energy (chassis: none)"),
        (one_chassis({"ChassisType": "RackMount"}, {}), "(chassis: 1)"),
        ({CHASSIS: "<html>"}, "is no Redfish document"),
        ({CHASSIS: {"Members": None}}, "(chassis: none)"),
        (one_chassis({"Power": link(f"{CHASSIS}/1/Power")}, {}), "(chassis: 1)"),
    ],
)
def test_no_power_is_an_error(tree: Tree, words: str) -> None:
    with pytest.raises(MeterError) as refused:
        opened(tree)
    assert words in str(refused.value)


def test_a_closed_port_is_named() -> None:
    with serving({}) as server:
        url = server.url
    with pytest.raises(MeterError, match="does not answer") as refused:
        RedfishMeter(RedfishOptions(url=url), CONTEXT).open_source()
    assert f"curl -k {url}/redfish/v1" in (refused.value.fix or "")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_server_must_prove_itself(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is refused, unless it is given or checks are off."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    subject = ["-subj", "/CN=bmc", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", key, "-out", certificate]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-x509"]
    subprocess.run(
        ["openssl", "req", *kind, *subject, *files, "-days", "2"], check=True, capture_output=True
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with serving(old_tree(), tls=tls) as server:
        with pytest.raises(MeterError, match="CERTIFICATE_VERIFY_FAILED") as refused:
            RedfishMeter(RedfishOptions(url=server.url), CONTEXT).open_source()
        assert "ca=FILE" in (refused.value.fix or "")
        for options in ({"ca": certificate}, {"verify": False}):
            meter = RedfishMeter(RedfishOptions(url=server.url, **options), CONTEXT)
            source = meter.open_source()
            assert source.domains
            source.close()
        with pytest.raises(MeterError, match="holds no certificate"):
            RedfishMeter(RedfishOptions(url=server.url, ca=key), CONTEXT).open_source()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://bmc.example"}, "in clear"),
        ({"url": "https://root:c0rrect@bmc"}, "must hold no login"),
        ({"url": "bmc"}, "must begin with"),
        ({"ca": "/nowhere.pem"}, "is no file"),
        ({"period_s": 0.0}, "must be from"),
    ],
)
def test_options_that_would_give_a_password_away_are_refused(
    options: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        RedfishOptions(**options)  # type: ignore[arg-type]
    assert "c0rrect" not in str(refused.value)
    assert RedfishOptions(url="http://bmc.example", insecure=True)
    assert RedfishOptions(url="http://localhost:8000")
