"""`wattbench attach`: a log made from a stored run, put back on its clock."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from emulation import emulated_run, varied_workload

from wattbench.cli.main import main
from wattbench.core.energy import EnergyMeasurement, FloatArray, PowerTrace
from wattbench.core.run import RawRun
from wattbench.metrics import run_facts
from wattbench.metrics.domains import energy_estimate
from wattbench.store import load_run


@pytest.fixture
def raw(engine: sa.Engine) -> RawRun:
    """A run with idle before and uneven load after."""
    found, _ = emulated_run(
        engine, varied_workload(idle_s=5.0), concurrency=2, seed=4, run_id="one"
    )
    return found


@pytest.fixture
def db(raw: RawRun, tmp_path: Path) -> tuple[str, str]:
    assert raw.status == "completed"
    return "--db", str(tmp_path / "runs.sqlite")


def power(raw: RawRun) -> tuple[FloatArray, FloatArray]:
    """Unix time and power of the run's own sensor."""
    trace = next(t for t in raw.traces if isinstance(t, PowerTrace))
    return raw.record.started_unix_s + trace.time_s, trace.power_watts


def ptdaemon(path: Path, unix_s: FloatArray, watts: FloatArray, hours: float = 0.0) -> Path:
    lines = []
    for at_s, value in zip(unix_s, watts, strict=True):
        whole, thousandths = divmod(round((at_s + 3600 * hours) * 1000), 1000)
        stamp = time.strftime("%m-%d-%Y %H:%M:%S", time.gmtime(whole))
        lines.append(f"Time,{stamp}.{thousandths:03d},Watts,{value:.3f},Volts,230.1,Mark,run")
    path.write_text("\n".join(lines) + "\n")
    return path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    with pytest.raises(SystemExit) as ended:
        main(["attach", *arguments, "--json"])
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), json.loads(out) if out else {}, err


def test_the_log_of_a_run_has_its_energy(
    capsys: pytest.CaptureFixture[str],
    engine: sa.Engine,
    raw: RawRun,
    db: tuple[str, str],
    tmp_path: Path,
) -> None:
    """A zone of + 2 h, 80 W of the rest of the machine; energies agree within the interval."""
    unix_s, watts = power(raw)
    log = ptdaemon(tmp_path / "ptd.log", unix_s, watts + 80.0, hours=2.0)
    about = ("one", "--log", str(log), "--format", "ptdaemon", "--utc-offset-hours", "2", *db)
    code, dry, err = call(capsys, *about, "--dry-run")
    assert (code, err) == (0, "")
    assert len(load_run(engine, "one").traces) == len(raw.traces)
    code, shown, err = call(capsys, *about)
    assert (code, err) == (0, "")
    assert shown["runs"] == dry["runs"]
    (run,) = shown["runs"]
    assert run["covers_window"]
    (domain,) = run["domains"]
    assert (domain["domain"], domain["boundary"], domain["current"]) == ("ptdaemon", "node", "ac")
    facts = run_facts(load_run(engine, "one"))
    found = {d.domain.name: d for d in facts.domains}
    gross, counter = found["ptdaemon"].gross, found["gpu:0"].gross
    assert isinstance(gross, EnergyMeasurement)
    assert isinstance(counter, EnergyMeasurement)
    estimate = energy_estimate(gross)
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < counter.energy_joules + 80.0 * counter.duration_s < estimate.high
    assert gross.alignment_half_width_joules > 0
    (event,) = [e for e in load_run(engine, "one").events if e.kind == "log_attached"]
    assert event.detail["file"] == "ptd.log"
    code, _, err = call(capsys, *about)
    assert code == 2
    assert "has a domain 'ptdaemon' already" in err
    code, _, err = call(capsys, *about, "--name", "again", "--boundary", "rack")
    assert (code, err) == (0, "")
    again = next(t for t in load_run(engine, "one").traces if t.domain.name == "again")
    assert again.domain.boundary == "rack"


@pytest.mark.parametrize("offset_s", [-37.25, 12.5])
@pytest.mark.parametrize("own_clock", [False, True])
def test_the_load_tells_the_offset(
    capsys: pytest.CaptureFixture[str],
    raw: RawRun,
    db: tuple[str, str],
    tmp_path: Path,
    offset_s: float,
    own_clock: bool,
) -> None:
    """A clock that is off by a known time, or all its own, is found within its half-width."""
    unix_s, watts = power(raw)
    noise = np.random.default_rng(1).normal(0, 5.0, len(watts))
    # The log begins before the run and ends after it, idle.
    pad = 400
    idle = np.full(pad, watts[:20].mean())
    before_s = unix_s[0] - 0.1 * np.arange(pad, 0, -1)
    after_s = unix_s[-1] + 0.1 * np.arange(1, pad + 1)
    log_s = np.concatenate([before_s, unix_s, after_s]) + offset_s
    log_watts = np.concatenate([idle, watts + noise, idle])
    column = "time_unix_s"
    if own_clock:
        log_s, column = log_s - log_s[0] + 777.0, "time_s"
    rows = [f"{t:.3f},{w:.2f}" for t, w in zip(log_s, log_watts, strict=True)]
    log = tmp_path / "plug.csv"
    log.write_text("\n".join([f"{column},power_watts", *rows]) + "\n")
    code, shown, err = call(capsys, "one", "--log", str(log), "--align", "load", *db)
    assert (code, err) == (0, "")
    (run,) = shown["runs"]
    found = run["alignment"]
    # A clock of its own begins with the log, which is this much before the run.
    truth = raw.record.started_unix_s - before_s[0] if own_clock else offset_s
    # A sensor that averages is moved back by half its window when it is read.
    assert found["offset_s"] == pytest.approx(truth, abs=found["half_width_s"] + 0.05)
    assert found["half_width_s"] < 1.0
    assert run["domains"][0]["clock_half_width_s"] == found["half_width_s"]


def test_without_a_meter_the_requests_tell_it(
    capsys: pytest.CaptureFixture[str], engine: sa.Engine, tmp_path: Path
) -> None:
    """The number of requests in flight stands in for power."""
    raw, _ = emulated_run(
        engine,
        varied_workload(idle_s=5.0),
        concurrency=None,
        rate_per_s=0.4,
        seed=4,
        run_id="bare",
    )
    unix_s, watts = power(raw)
    with engine.begin() as connection:
        for table in ("trace_blocks", "domains"):
            connection.execute(sa.text(f"DELETE FROM {table} WHERE run_id = 'bare'"))
    log = ptdaemon(tmp_path / "ptd.log", unix_s + 3.0, watts)
    arguments = ("bare", "--log", str(log), "--format", "ptdaemon", "--utc-offset-hours", "0")
    database = ("--db", str(tmp_path / "runs.sqlite"))
    code, shown, err = call(capsys, *arguments, *database, "--align", "load")
    assert (code, err) == (0, "")
    found = shown["runs"][0]["alignment"]
    assert found["offset_s"] == pytest.approx(3.0, abs=found["half_width_s"] + 0.3)


def test_a_device_that_was_metered_already_is_charged_once(
    capsys: pytest.CaptureFixture[str],
    engine: sa.Engine,
    raw: RawRun,
    db: tuple[str, str],
    tmp_path: Path,
) -> None:
    """The log of a GPU that has a counter hangs below it; the headline stays what it was."""
    unix_s, watts = power(raw)
    lines = ["timestamp, index, power.draw [W]"]
    for at_s, value in zip(unix_s, watts, strict=True):
        whole, thousandths = divmod(round(at_s * 1000), 1000)
        stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.gmtime(whole))
        lines.append(f"{stamp}.{thousandths:03d}, 0, {value:.2f} W")
    log = tmp_path / "smi.csv"
    log.write_text("\n".join(lines) + "\n")
    about = ("one", "--log", str(log), "--format", "nvidia-smi", "--utc-offset-hours", "0", *db)
    code, shown, err = call(capsys, *about)
    assert (code, err) == (0, "")
    assert shown["runs"][0]["added_to"] == []
    after = load_run(engine, "one")
    added = next(t.domain for t in after.traces if t.domain.name.startswith("nvidia-smi"))
    assert added.parent == "gpu:0"
    assert run_facts(after).headline == run_facts(raw).headline


def test_refusals(
    capsys: pytest.CaptureFixture[str], raw: RawRun, db: tuple[str, str], tmp_path: Path
) -> None:
    """Another day, another clock, no load, no run."""
    unix_s, watts = power(raw)
    log = ptdaemon(tmp_path / "ptd.log", unix_s + 86400.0, watts)
    late = ("one", "--log", str(log), "--format", "ptdaemon", "--utc-offset-hours", "0", *db)
    code, _, err = call(capsys, *late)
    assert code == 2
    assert "does not overlap run one" in err
    code, _, err = call(capsys, *late, "--align", "load")
    assert code == 1
    assert "not_covered" in err
    code, _, err = call(capsys, *late, "--offset-s", "86400", "--dry-run")
    assert (code, err) == (0, "")
    own = tmp_path / "own.csv"
    own.write_text("time_s,power_watts\n0,1\n1,2\n")
    code, _, err = call(capsys, "one", "--log", str(own), *db)
    assert code == 2
    assert "--align load" in err
    code, _, err = call(capsys, "two", "--log", str(log), "--format", "ptdaemon", *db)
    assert code == 2
