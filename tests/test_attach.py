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

PTDAEMON_UTC = ("--format", "ptdaemon", "--utc-offset-hours", "0")


@pytest.fixture
def raw(engine: sa.Engine) -> RawRun:
    """A run with idle before and uneven load after."""
    found, _ = emulated_run(
        engine, varied_workload(idle_s=5.0), concurrency=2, seed=4, run_id="one"
    )
    assert found.status == "completed"
    return found


def power(raw: RawRun) -> tuple[FloatArray, FloatArray]:
    """Unix time and power of the run's own sensor."""
    trace = next(t for t in raw.traces if isinstance(t, PowerTrace))
    return raw.record.started_unix_s + trace.time_s, trace.power_watts


def stamp(unix_s: float, form: str) -> str:
    """A time of day in UTC, with milliseconds."""
    whole, thousandths = divmod(round(unix_s * 1000), 1000)
    return f"{time.strftime(form, time.gmtime(whole))}.{thousandths:03d}"


def ptdaemon(path: Path, unix_s: FloatArray, watts: FloatArray, hours: float = 0.0) -> Path:
    lines = []
    for at_s, value in zip(unix_s, watts, strict=True):
        at = stamp(at_s + 3600 * hours, "%m-%d-%Y %H:%M:%S")
        lines.append(f"Time,{at},Watts,{value:.3f},Volts,230.1,Mark,run")
    path.write_text("\n".join(lines) + "\n")
    return path


class Attach:
    """The command, on the database of the run."""

    def __init__(self, capsys: pytest.CaptureFixture[str], path: Path) -> None:
        self._capsys, self._database = capsys, ("--db", str(path))

    def __call__(self, run: str, log: Path, *options: str) -> dict[str, Any]:
        """What it prints, where it works."""
        code, out, err = self._ended(run, log, *options)
        assert (code, err) == (0, "")
        found: dict[str, Any] = json.loads(out)
        return found

    def refused(self, run: str, log: Path, *options: str) -> tuple[int, str]:
        """Its exit code and error, where it does not."""
        code, _, err = self._ended(run, log, *options)
        return code, err

    def _ended(self, run: str, log: Path, *options: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["attach", run, "--log", str(log), *options, *self._database, "--json"])
        code = ended.value.code
        return code if isinstance(code, int) else 0, *self._capsys.readouterr()


@pytest.fixture
def attach(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Attach:
    return Attach(capsys, tmp_path / "runs.sqlite")


def test_the_log_of_a_run_has_its_energy(
    attach: Attach, engine: sa.Engine, raw: RawRun, tmp_path: Path
) -> None:
    """A zone of + 2 h, 80 W of the rest of the machine; energies agree within the interval."""
    unix_s, watts = power(raw)
    log = ptdaemon(tmp_path / "ptd.log", unix_s, watts + 80.0, hours=2.0)
    form = ("--format", "ptdaemon", "--utc-offset-hours", "2")
    dry = attach("one", log, *form, "--dry-run")
    assert len(load_run(engine, "one").traces) == len(raw.traces)
    shown = attach("one", log, *form)
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
    code, err = attach.refused("one", log, *form)
    assert code == 2
    assert "has a domain 'ptdaemon' already" in err
    attach("one", log, *form, "--name", "again", "--boundary", "rack")
    again = next(t for t in load_run(engine, "one").traces if t.domain.name == "again")
    assert again.domain.boundary == "rack"


@pytest.mark.parametrize("offset_s", [-37.25, 12.5])
@pytest.mark.parametrize("own_clock", [False, True])
def test_the_load_tells_the_offset(
    attach: Attach, raw: RawRun, tmp_path: Path, offset_s: float, own_clock: bool
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
    shown = attach("one", log, "--align", "load")
    (run,) = shown["runs"]
    found = run["alignment"]
    # A clock of its own begins with the log, which is this much before the run.
    truth = raw.record.started_unix_s - before_s[0] if own_clock else offset_s
    # A sensor that averages is moved back by half its window when it is read.
    assert found["offset_s"] == pytest.approx(truth, abs=found["half_width_s"] + 0.05)
    assert found["half_width_s"] < 1.0
    assert run["domains"][0]["clock_half_width_s"] == found["half_width_s"]


def test_without_a_meter_the_requests_tell_it(
    attach: Attach, engine: sa.Engine, tmp_path: Path
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
    shown = attach("bare", log, *PTDAEMON_UTC, "--align", "load")
    found = shown["runs"][0]["alignment"]
    assert found["offset_s"] == pytest.approx(3.0, abs=found["half_width_s"] + 0.3)


def test_a_device_that_was_metered_already_is_charged_once(
    attach: Attach, engine: sa.Engine, raw: RawRun, tmp_path: Path
) -> None:
    """The log of a GPU that has a counter hangs below it; the headline stays what it was."""
    unix_s, watts = power(raw)
    lines = ["timestamp, index, power.draw [W]"]
    for at_s, value in zip(unix_s, watts, strict=True):
        lines.append(f"{stamp(at_s, '%Y/%m/%d %H:%M:%S')}, 0, {value:.2f} W")
    log = tmp_path / "smi.csv"
    log.write_text("\n".join(lines) + "\n")
    shown = attach("one", log, "--format", "nvidia-smi", "--utc-offset-hours", "0")
    assert shown["runs"][0]["added_to"] == []
    after = load_run(engine, "one")
    added = next(t.domain for t in after.traces if t.domain.name.startswith("nvidia-smi"))
    assert added.parent == "gpu:0"
    assert run_facts(after).headline == run_facts(raw).headline


def test_refusals(attach: Attach, raw: RawRun, tmp_path: Path) -> None:
    """Another day, another clock, no load, no run."""
    unix_s, watts = power(raw)
    log = ptdaemon(tmp_path / "ptd.log", unix_s + 86400.0, watts)
    code, err = attach.refused("one", log, *PTDAEMON_UTC)
    assert code == 2
    assert "does not overlap run one" in err
    code, err = attach.refused("one", log, *PTDAEMON_UTC, "--align", "load")
    assert code == 1
    assert "not_covered" in err
    attach("one", log, *PTDAEMON_UTC, "--offset-s", "86400", "--dry-run")
    own = tmp_path / "own.csv"
    own.write_text("time_s,power_watts\n0,1\n1,2\n")
    code, err = attach.refused("one", own)
    assert code == 2
    assert "--align load" in err
    code, err = attach.refused("two", log, "--format", "ptdaemon")
    assert code == 2
