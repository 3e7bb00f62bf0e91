"""Logs of other programs, written here as those programs print them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from wattbench.cli.main import main
from wattbench.core.errors import UsageError
from wattbench.interchange import (
    FORMATS,
    LogFormat,
    LogOptions,
    Wishes,
    choose,
    domains_of,
    logged_run_s,
    read_log,
    run_times_s,
)

UTC_LOG = LogOptions(utc_offset_s=0.0)
NOON_S = datetime(2026, 3, 30, 12, tzinfo=UTC).timestamp()

PTDAEMON = """\
Time,03-30-2026 12:00:00.204,Watts,418.36,Volts,228.36,Amps,1.860,PF,0.985,Mark,run_1
Time,03-30-2026 12:00:01.205,Watts,-1.00,Volts,-1.00,Amps,-1.000,PF,-1.000,Mark,run_1

Time,03-30-2026 12:00:02.204,Watts,420.00,Volts,228.36,Amps,1.860,PF,0.985,Mark,run_1
"""
NVIDIA = """\
timestamp, index, uuid, power.draw [W], power.draw.instant [W], clocks.current.sm [MHz]
2026/03/30 12:00:00.100, 0, GPU-aa, 71.20 W, 70.10 W, 345 MHz
2026/03/30 12:00:00.100, 1, GPU-bb, 68.00 W, [N/A], 345 MHz
2026/03/30 12:00:00.200, 0, GPU-aa, 72.20 W, 70.20 W, 345 MHz
2026/03/30 12:00:00.200, 1, GPU-bb, [Unknown Error], 65.00 W, 345 MHz
"""
AMD = """\
timestamp,gpu,socket_power,gfx_voltage,total_energy_consumption
1774872000,0,140 W,N/A,5000.5 J
1774872000,1,141 W,N/A,6000.5 J
1774872001,0,N/A,N/A,5140.5 J
1774872001,1,142,N/A,6141.5
"""
DCGM = """\
#Entity   POWER                       TOTEC
ID        W                           mJ
GPU 0     71.235                      123000
GPU 1     68.100                      456000
GPU 0     N/A                         130000
#Entity   POWER                       TOTEC
ID        W                           mJ
GPU 1     68.200                      462800
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "log.txt"
    path.write_text(text)
    return path


def test_ptdaemon(tmp_path: Path) -> None:
    """Local time, −1 for a failed read, alternating current at the node."""
    (channel,) = read_log(written(tmp_path, PTDAEMON), "ptdaemon", UTC_LOG)
    assert channel.time_s == pytest.approx(NOON_S + np.array([0.204, 1.205, 2.204]))
    assert channel.value == pytest.approx([418.36, math.nan, 420.0], nan_ok=True)
    assert (channel.boundary, channel.current, channel.resolution_s) == ("node", "ac", 0.001)
    assert (channel.name, channel.time_base) == ("ptdaemon", "unix")


def test_ptdaemon_with_channels(tmp_path: Path) -> None:
    """An analyser of two channels tells the sum, and each."""
    line = "Time,03-30-2026 12:00:00.000,Watts,30,Volts,1,Mark,a,Ch1,Watts,10,Volts,1,Ch2,Watts,20"
    channels = read_log(written(tmp_path, line + "\n"), "ptdaemon", UTC_LOG)
    assert [(c.name, float(c.value[0])) for c in channels] == [
        ("ptdaemon", 30.0),
        ("ptdaemon:ch1", 10.0),
        ("ptdaemon:ch2", 20.0),
    ]


@pytest.mark.parametrize("units", [True, False])
def test_nvidia_smi(tmp_path: Path, units: bool) -> None:
    """A channel per GPU and column; units may be left out; the header may come again."""
    header, rows = NVIDIA.split("\n", 1)
    text = NVIDIA + header + "\n"
    if not units:
        text = header + "\n" + rows.replace(" W", "").replace(" MHz", "")
    channels = read_log(written(tmp_path, text), "nvidia-smi", UTC_LOG)
    assert [c.name for c in channels] == [
        "nvidia-smi:0/power.draw",
        "nvidia-smi:0/power.draw.instant",
        "nvidia-smi:1/power.draw",
        "nvidia-smi:1/power.draw.instant",
    ]
    assert channels[0].time_s == pytest.approx(NOON_S + np.array([0.1, 0.2]))
    assert channels[0].value == pytest.approx([71.2, 72.2])
    assert channels[2].value == pytest.approx([68.0, math.nan], nan_ok=True)
    assert channels[3].value == pytest.approx([math.nan, 65.0], nan_ok=True)
    assert {c.device for c in channels} == {"GPU-aa", "GPU-bb"}
    assert choose(channels, "power.draw", "1") is channels[2]
    assert choose(channels, "power.draw", "GPU-aa") is channels[0]
    with pytest.raises(UsageError, match="several channels"):
        choose(channels, None, "0")
    with pytest.raises(UsageError, match=r"no column power\.draw of device 7"):
        choose(channels, "power.draw", "7")
    domains = domains_of(channels, Wishes(), "external")
    assert [d.parent for d in domains] == [None, channels[0].name, None, channels[2].name]
    assert domains[0].covers("0")
    assert domains[0].covers("GPU-aa")
    assert not domains[0].covers("1")


def test_amd_smi(tmp_path: Path) -> None:
    """Power and energy of each GPU, units in the cells or not."""
    channels = read_log(written(tmp_path, AMD), "amd-smi")
    found = {c.name: c for c in channels}
    assert list(found) == ["amd-smi:0", "amd-smi:0/power", "amd-smi:1", "amd-smi:1/power"]
    assert found["amd-smi:0"].value == pytest.approx([5000.5, 5140.5])
    assert found["amd-smi:0"].quantity == "energy_counter"
    assert found["amd-smi:0/power"].value == pytest.approx([140.0, math.nan], nan_ok=True)
    assert found["amd-smi:1/power"].value == pytest.approx([141.0, 142.0])
    assert found["amd-smi:1"].time_s == pytest.approx([1774872000.0, 1774872001.0])
    assert found["amd-smi:1"].resolution_s == 1.0


def test_dcgm(tmp_path: Path) -> None:
    """No times of its own, so they must be told; millijoules become joules."""
    path = written(tmp_path, DCGM)
    with pytest.raises(UsageError, match="start_unix_s"):
        read_log(path, "dcgm")
    channels = read_log(path, "dcgm", LogOptions(start_unix_s=NOON_S, period_s=0.1))
    found = {c.name: c for c in channels}
    assert list(found) == ["dcgm:0/power", "dcgm:0", "dcgm:1/power", "dcgm:1"]
    assert found["dcgm:0"].value == pytest.approx([123.0, 130.0])
    assert found["dcgm:0/power"].value == pytest.approx([71.235, math.nan], nan_ok=True)
    assert found["dcgm:1"].time_s == pytest.approx(NOON_S + np.array([0.0, 0.1]))


@pytest.mark.parametrize(
    ("header", "stamps", "base"),
    [
        ("time_s", ("0.5", "1.5"), "file"),
        ("time_unix_s", (f"{NOON_S + 0.5}", f"{NOON_S + 1.5}"), "unix"),
        ("timestamp", ("2026-03-30T14:00:00.5+02:00", "2026-03-30T12:00:01.500Z"), "unix"),
        ("time", ("2026-03-30 12:00:00.5", "2026-03-30 12:00:01.5"), "unix"),
    ],
)
def test_csv_times(tmp_path: Path, header: str, stamps: tuple[str, str], base: str) -> None:
    """Seconds of the file, Unix seconds, or ISO 8601 with a zone or without."""
    text = f"{header},power_watts\n{stamps[0]},10\n{stamps[1]},n/a\n"
    (channel,) = read_log(written(tmp_path, text), "csv", UTC_LOG)
    origin_s = 0.0 if base == "file" else NOON_S
    assert channel.time_s == pytest.approx(origin_s + np.array([0.5, 1.5]))
    assert channel.value == pytest.approx([10.0, math.nan], nan_ok=True)
    assert (channel.time_base, channel.resolution_s) == (base, 0.1)


@pytest.mark.parametrize(
    ("form", "text", "parts"),
    [
        ("ptdaemon", "", ("no line of PTDaemon",)),
        ("ptdaemon", PTDAEMON + "rubbish\n", ("line 5", "'rubbish'")),
        ("ptdaemon", "Time,30-03-2026 12:00:00,Watts,1\n", ("line 1", "Time", "'30-03-2026 ")),
        ("ptdaemon", "Time,03-30-2026 12:00:00,Watts,x\n", ("line 1", "Watts", "'x'")),
        ("ptdaemon", "Time,03-30-2026 12:00:00,Volts,1\n", ("line 1", "Watts is missing")),
        ("nvidia-smi", "index, power.draw [W]\n", ("line 1", "timestamp", "--query-gpu")),
        ("nvidia-smi", "timestamp, index\n", ("line 1", "power.draw", "timestamp, index")),
        ("nvidia-smi", NVIDIA.replace("68.00 W", "much"), ("line 3", "power.draw", "'much'")),
        ("nvidia-smi", NVIDIA.replace("68.00 W", "68 V"), ("line 3", "power.draw", "'68 V'")),
        ("nvidia-smi", NVIDIA.replace("/30 12:00:00.200", "/33 12"), ("line 4", "timestamp")),
        ("nvidia-smi", NVIDIA + "2026/03/30 12:00:01, 0\n", ("line 6", "uuid is missing")),
        ("amd-smi", "gpu,socket_power\n0,1\n", ("line 1", "timestamp", "--watch")),
        ("amd-smi", "timestamp,gpu,heat\n1,0,1\n", ("line 1", "socket_power", "heat")),
        ("amd-smi", "timestamp,gpu,power\n12,0,1\n", ("line 2", "timestamp", "'12'")),
        ("amd-smi", AMD.replace("140 W", "a"), ("line 2", "socket_power", "'a'")),
        ("dcgm", "", ("no row",)),
        ("dcgm", "#Entity GPUTL\n", ("line 1", "GPUTL")),
        ("dcgm", "#Entity POWER\nGPU 0 1 2\n", ("line 2", "2 values", "POWER")),
        ("dcgm", "#Entity POWER\nGPU 0 x\n", ("line 2", "POWER", "'x'")),
        ("dcgm", "#Entity POWER\nError: lost\n", ("line 2", "'Error: lost'")),
        ("csv", "time,power_watts\nnoon,1\n", ("line 2", "time", "'noon'")),
    ],
)
def test_malformed_logs_name_the_place(
    tmp_path: Path, form: LogFormat, text: str, parts: tuple[str, ...]
) -> None:
    """File, line, column and value, and the way out."""
    path = written(tmp_path, text)
    options = LogOptions(utc_offset_s=0.0, start_unix_s=0.0, period_s=1.0)
    with pytest.raises(UsageError) as raised:
        read_log(path, form, options)
    for part in (str(path), *parts):
        assert part in str(raised.value)


def test_several_gpus_without_index_are_refused(tmp_path: Path) -> None:
    """Two rows of one stamp cannot be told apart."""
    text = "timestamp, power.draw [W]\n" + "2026/03/30 12:00:00.100, 70.0 W\n" * 2
    with pytest.raises(UsageError, match="comes twice"):
        read_log(written(tmp_path, text), "nvidia-smi", UTC_LOG)


def test_half_a_line_is_not_read_while_the_log_grows(tmp_path: Path) -> None:
    """The last line of a growing log counts once it is whole."""
    path = written(tmp_path, "time_unix_s,power_watts\n1,2\n2,3")
    assert len(read_log(path, "csv", growing=True)[0].value) == 1
    assert len(read_log(path, "csv")[0].value) == 2


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine in a zone whose clocks go back on 25 October 2026 at 03:00."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def _lines(*stamps: str) -> str:
    return "".join(f"Time,{stamp},Watts,1\n" for stamp in stamps)


@pytest.mark.usefixtures("berlin")
def test_the_hour_that_comes_twice(tmp_path: Path) -> None:
    """Told from what comes before it; refused where nothing does, or the time never was."""
    day = "10-25-2026"
    log = _lines(f"{day} 01:59:59", f"{day} 02:59:59", f"{day} 02:00:00", f"{day} 03:00:00")
    (channel,) = read_log(written(tmp_path, log), "ptdaemon")
    begin_s = datetime(2026, 10, 25, 1, 59, 59, tzinfo=timezone(timedelta(hours=2))).timestamp()
    assert (channel.time_s - begin_s).tolist() == [0.0, 3600.0, 3601.0, 7201.0]
    path = written(tmp_path, _lines(f"{day} 02:30:00"))
    with pytest.raises(UsageError, match="comes twice"):
        read_log(path, "ptdaemon")
    (channel,) = read_log(path, "ptdaemon", LogOptions(utc_offset_s=3600.0))
    assert channel.time_s[0] == datetime(2026, 10, 25, 1, 30, tzinfo=UTC).timestamp()
    with pytest.raises(UsageError, match="does not exist"):
        read_log(written(tmp_path, _lines("03-29-2026 02:30:00")), "ptdaemon")


def test_from_wall_clock_to_run_clock() -> None:
    """Linear between anchors, and the clocks go equally fast outside."""
    unix_s = np.array([90.0, 100.0, 150.0, 200.0, 210.0])
    anchors = [(0.0, 100.0), (99.0, 200.0)]
    assert run_times_s(unix_s, anchors) == pytest.approx([-10.0, 0.0, 49.5, 99.0, 109.0])
    assert run_times_s(unix_s, [(5.0, 100.0)]) == pytest.approx(unix_s - 95.0)


def test_stamps_that_were_cut_off(tmp_path: Path) -> None:
    """Whole seconds stand for half a second later, and that half is in doubt."""
    text = "time_unix_s,power_watts\n1700000000,1\n1700000001,2\n"
    channels = read_log(written(tmp_path, text), "csv")
    run_s = logged_run_s(channels[0], [(0.0, 1.7e9)], offset_s=2.0)
    assert run_s == pytest.approx([-1.5, -0.5])
    (domain,) = domains_of(channels, Wishes(), "external")
    assert domain.clock_half_width_s == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("form", "text", "options"),
    [
        ("nvidia-smi", NVIDIA, ("--column", "power.draw", "--device", "0")),
        ("amd-smi", AMD, ("--column", "total_energy_consumption", "--device", "0")),
        ("dcgm", DCGM, ("--column", "TOTEC", "--device", "1")),
    ],
)
def test_energy_of_every_format(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    form: LogFormat,
    text: str,
    options: tuple[str, ...],
) -> None:
    """`wattbench energy` takes each, its window in Unix seconds or as dates."""
    assert form in FORMATS
    clock = ("--start-unix-s", str(NOON_S), "--period-s", "0.1", "--utc-offset-hours", "0")
    start_s = {"nvidia-smi": NOON_S + 0.1, "amd-smi": 1774872000.0, "dcgm": NOON_S}[form]
    start = datetime.fromtimestamp(start_s, UTC).isoformat()
    end_s = start_s + (1.0 if form == "amd-smi" else 0.1)
    log = ("--log", str(written(tmp_path, text)), "--format", form)
    with pytest.raises(SystemExit) as ended:
        main(["energy", *log, *clock, *options, "--start", start, "--end", repr(end_s), "--json"])
    assert not ended.value.code
    shown = json.loads(capsys.readouterr().out)
    wanted = {"nvidia-smi": 7.17, "amd-smi": 140.0, "dcgm": 6.8}[form]
    assert shown["energy_joules"]["value"] == pytest.approx(wanted, rel=1e-4)
    assert shown["boundary"] == "board"
    assert shown["column"] == options[1]
