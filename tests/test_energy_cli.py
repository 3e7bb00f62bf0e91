"""``wattbench energy`` as a user meets it: values, refusals with reasons, errors that help."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattbench.cli.main import main
from wattbench.core.energy import FloatArray

TIME_S = np.round(np.arange(0.0, 20.05, 0.1), 3)
NOISY = 300.0 + np.random.default_rng(1).normal(0, 5, len(TIME_S)).round(2)


def write_log(
    path: Path, time_s: FloatArray, value: FloatArray, column: str = "power_watts"
) -> Path:
    rows = [f"{float(t)!r},{float(v)!r}" for t, v in zip(time_s, value, strict=True)]
    path.write_text("\n".join([f"time_s,{column}", *rows]) + "\n")
    return path


def called(capsys: pytest.CaptureFixture[str], log: Path, *options: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command, called in process."""
    with pytest.raises(SystemExit) as ended:
        main(["energy", "--log", str(log), *options])
    shown = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), shown.out, shown.err


def result(
    capsys: pytest.CaptureFixture[str],
    log: Path,
    *options: str,
    start: float = 2.0,
    end: float = 18,
) -> dict[str, Any]:
    window = ("--start", str(start), "--end", str(end), "--json")
    code, out, err = called(capsys, log, *window, *options)
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_as_a_process_it_prints_one_object_or_a_line_for_a_reader(tmp_path: Path) -> None:
    """100 → 400 W half way: 2500 J in 10 s; and what nobody said is said."""
    log = write_log(tmp_path / "log.csv", TIME_S, np.where(TIME_S < 10.0, 100.0, 400.0))
    command = [sys.executable, "-m", "wattbench", "energy", "--log", str(log)]
    window = ["--start", "5", "--end", "15"]

    def run(*options: str) -> str:
        asked = [*command, *window, *options]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    with ThreadPoolExecutor(2) as pool:
        as_json, as_text = pool.map(lambda options: run(*options), [("--json",), ()])
    shown = json.loads(as_json)
    energy = shown["energy_joules"]
    assert energy["value"] == pytest.approx(2515.0)
    assert energy["low"] < 2500.0
    assert energy["high"] > 2530.0
    assert (shown["kind"], shown["boundary"]) == ("integrated", None)
    assert [f["code"] for f in shown["findings"]] == ["boundary_unknown", "no_prior"]
    assert set(shown["findings"][0]) == {"code", "severity", "message"}
    assert as_text.startswith("2515 J  95 % ")
    assert "boundary unknown" in as_text


def test_hold_and_linear(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A ramp by trapezoids, and by the rectangles of a last-value sensor."""
    log = write_log(tmp_path / "log.csv", np.arange(0.0, 21.0), 10 * np.arange(0.0, 21.0))
    linear = result(capsys, log, start=2.5, end=17.25)["energy_joules"]["value"]
    assert linear == pytest.approx(5 * (17.25**2 - 2.5**2), rel=1e-9)
    held = result(capsys, log, "--hold", start=2.5, end=17.25)["energy_joules"]["value"]
    assert held == pytest.approx(0.5 * 20 + 10 * sum(range(3, 17)) + 0.25 * 170, rel=1e-9)


def test_priors_make_the_interval(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A gain of ± 5 % alone gives ± 4.75 % at 95 %; offset and boundary go through as given."""
    log = write_log(tmp_path / "log.csv", TIME_S, NOISY)
    gain = ("--gain-half-width-fraction", "0.05", "--boundary", "board")
    shown = result(capsys, log, *gain)
    energy = shown["energy_joules"]
    assert energy["high"] / energy["value"] - 1 == pytest.approx(0.0475, abs=1e-3)
    assert (shown["boundary"], shown["findings"]) == ("board", [])
    wider = result(capsys, log, *gain, "--offset-half-width-watts", "20")["energy_joules"]
    assert wider["high"] > energy["high"]
    terms = {t["name"]: t["standard_joules"] for t in shown["budget"]}
    assert terms["gain"] == pytest.approx(0.05 * energy["value"] / 3**0.5)


def test_a_trailing_mean_is_moved_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A sensor that shows the mean over the last second is half a second late."""
    log = write_log(tmp_path / "log.csv", TIME_S, 400.0 + 10 * (TIME_S - 0.5))
    late = ("--averaging-window-s", "1", "--update-period-s", "0.1")
    value = result(capsys, log, *late)["energy_joules"]["value"]
    assert value == pytest.approx(16 * 400 + 5 * (18**2 - 2**2), rel=1e-9)
    short = result(capsys, log, *late, start=4.0, end=6.0)
    assert [f["code"] for f in short["findings"] if f["severity"] == "warning"] == [
        "window_too_short"
    ]


def test_a_polled_counter(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Repeats of a counter are its update period, and a wrap is no loss."""
    polls_s = np.arange(0.0, 20.0, 0.02).round(3)
    energy = np.floor(polls_s / 0.1 + 1e-6) * 30.0
    log = write_log(tmp_path / "a.csv", polls_s, energy, "energy_joules")
    shown = result(capsys, log, start=2.345, end=17.9)
    assert shown["energy_joules"]["value"] == pytest.approx(300 * 15.555, rel=1e-9)
    assert shown["kind"] == "counter"
    wrapped = write_log(tmp_path / "b.csv", polls_s, energy % 4000.0, "energy_joules")
    again = result(capsys, wrapped, "--wrap-joules", "4000", start=2.345, end=17.9)
    assert again["energy_joules"]["value"] == pytest.approx(300 * 15.555, rel=1e-9)


def with_values(*changes: tuple[slice, float]) -> tuple[FloatArray, FloatArray]:
    value = NOISY.copy()
    for where, level in changes:
        value[where] = level
    return TIME_S, value


def without(where: slice) -> tuple[FloatArray, FloatArray]:
    return np.delete(TIME_S, where), np.delete(NOISY, where)


def counter_with(change: Callable[[FloatArray], FloatArray]) -> tuple[FloatArray, FloatArray]:
    return TIME_S, change(1000.0 + 300.0 * TIME_S)


POWER_FAULTS = {
    "failed_read": with_values((slice(80, 82), np.nan)),
    "negative_reading": with_values((slice(80, 81), -3.0)),
    "zero_reading": with_values((slice(None), 0.0)),
    "stale_sensor": with_values((slice(80, 125), NOISY[80])),
    "gap": without(slice(80, 115)),
    "not_bracketed": without(slice(170, None)),
    "no_samples": without(slice(1, None)),
    "time_backwards": (np.concatenate([TIME_S[:100], TIME_S[:101]]), NOISY),
}
COUNTER_FAULTS = {
    "counter_reset": counter_with(lambda e: np.where(TIME_S < 8.0, e, e - e[80])),
    "stale_counter": counter_with(lambda e: np.where(TIME_S < 8.0, e, np.maximum(e[80], e - 1200))),
    "failed_read": counter_with(lambda e: np.where(TIME_S == 8.0, np.nan, e)),
    "zero_reading": counter_with(np.zeros_like),
}


@pytest.mark.parametrize(
    ("code", "column", "log"),
    [(code, "power_watts", log) for code, log in POWER_FAULTS.items()]
    + [(code, "energy_joules", log) for code, log in COUNTER_FAULTS.items()],
)
def test_a_spoilt_log_has_no_energy_and_says_why(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    code: str,
    column: str,
    log: tuple[FloatArray, FloatArray],
) -> None:
    """Still one object and exit code 0; with --require-valid 1."""
    path = write_log(tmp_path / "log.csv", *log, column)
    shown = result(capsys, path)
    assert shown["energy_joules"] == {"value": None, "low": None, "high": None}
    errors = [f["code"] for f in shown["findings"] if f["severity"] == "error"]
    assert code in errors
    window = ("--start", "2", "--end", "18", "--require-valid")
    exit_code, out, err = called(capsys, path, *window)
    assert exit_code == 1
    assert out.startswith("no energy")
    assert code in err


def test_what_is_wrong_outside_the_window_does_no_harm(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A failed read, a negative and a frozen stretch before the window leave it valid."""
    spoilt = with_values((slice(2, 3), np.nan), (slice(4, 5), -1.0), (slice(10, 60), 301.0))
    log = write_log(tmp_path / "log.csv", *spoilt)
    assert result(capsys, log, start=8.0)["energy_joules"]["value"] is not None


@pytest.mark.parametrize(
    "watts",
    [
        np.full(len(TIME_S), 300.0),
        np.where(TIME_S < 10.0, 100.0, 400.0),
        np.interp(TIME_S, [0.0, 5.0, 15.0, 20.0], [100.0, 400.0, 400.0, 100.0]),
        np.where((TIME_S > 6) & (TIME_S < 12), 60.0, NOISY),
    ],
)
def test_power_may_stand(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, watts: FloatArray
) -> None:
    """Constant power, steps, a plateau between ramps and an idle stretch are no stuck sensor."""
    shown = result(capsys, write_log(tmp_path / "log.csv", TIME_S, watts))
    assert shown["energy_joules"]["value"] is not None


def test_single_zeros_count_and_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A load that is switched off is 0 W; whether it was is for the reader to say."""
    log = write_log(tmp_path / "log.csv", *with_values((slice(80, 90), 0.0)))
    shown = result(capsys, log)
    assert shown["energy_joules"]["value"] == pytest.approx(300 * 15, rel=0.01)
    assert [f["code"] for f in shown["findings"] if f["severity"] == "warning"] == ["zero_reading"]


def test_unix_seconds_and_extra_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The clock is the file's own; a byte order mark, other columns and blank lines are no harm."""
    rows = [f"{1.7e9 + t:.3f},gpu,{v:.2f},7" for t, v in zip(TIME_S, NOISY, strict=True)]
    log = tmp_path / "log.csv"
    log.write_text("\ufefftime_s, name ,power_watts,slot_watts\n" + "\n\n".join(rows) + "\n")
    value = result(capsys, log, start=1.7e9 + 2, end=1.7e9 + 18)["energy_joules"]["value"]
    assert value == pytest.approx(np.trapezoid(NOISY[20:181], TIME_S[20:181]), rel=1e-6)
    slot = result(capsys, log, "--column", "slot_watts", start=1.7e9 + 2, end=1.7e9 + 18)
    assert slot["energy_joules"]["value"] == pytest.approx(7 * 16.0, rel=1e-6)
    assert slot["column"] == "slot_watts"


@pytest.mark.parametrize(
    ("text", "options", "parts"),
    [
        (None, (), ("log.csv", "cannot be read")),
        ("", (), ("line 1", "'power_watts'")),
        ("t,power_watts\n1,2\n", (), ("line 1", "'time_s'")),
        ("time_s,power_watt\n1,2\n", (), ("line 1", "'power_watts'", "did you mean 'power_watt'")),
        ("time_s,power_watts\n1,2\n2,many\n", (), ("line 3", "power_watts", "'many'")),
        ("time_s,power_watts\n1,2\nnan,2\n", (), ("line 3", "time_s", "'nan'")),
        ("time_s,power_watts\n1,2\n2\n", (), ("line 3", "power_watts is missing")),
        ("time_s,a_watts,b_watts\n1,2,3\n", (), ("a_watts, b_watts", "--column")),
        ("time_s,power_watts\n1,2\n", ("--column", "x"), ("line 1", "'x'")),
        ("time_s,energy_joules\n1,2\n2,3\n", ("--hold",), ("--hold", "counter")),
        ("time_s,power_watts\n1,2\n2,3\n", ("--end", "1"), ("--start 1 --end 1",)),
        ("time_s,power_watts\n1,2\n2,3\n", ("--end", "nan"), ("--end nan",)),
    ],
)
def test_bad_usage_names_the_place(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str | None,
    options: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:
    """Exit code 2, nothing on stdout, and file, line and column in the message."""
    log = tmp_path / "log.csv"
    if text is not None:
        log.write_text(text)
    code, out, err = called(capsys, log, "--start", "1", "--end", "2", "--json", *options)
    assert (code, out) == (2, "")
    for part in parts:
        assert part in err


def test_a_file_that_is_no_text_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Bytes that are no UTF-8."""
    log = tmp_path / "log.csv"
    log.write_bytes(b"time_s,power_watts\n\xff\xfe\x00,1\n")
    code, _, err = called(capsys, log, "--start", "1", "--end", "2")
    assert code == 2
    assert "cannot be read" in err


@pytest.mark.parametrize("column", ["power_watts", "energy_joules"])
def test_a_power_that_stands_alone_is_said_and_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, column: str
) -> None:
    watts = NOISY.copy()
    watts[80] = 20 * watts.max()
    values = watts if column == "power_watts" else np.cumsum(watts) * 0.1
    shown = result(capsys, write_log(tmp_path / "log.csv", TIME_S, values, column))
    assert shown["energy_joules"]["value"] is not None
    assert "spike" in {f["code"] for f in shown["findings"] if f["severity"] == "warning"}
