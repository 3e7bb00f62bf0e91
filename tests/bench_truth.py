"""Measured joules beside a truth: ``make bench-truth``.

With ``--truth DIR`` the truth is an external meter: DIR holds records of a driver's power readings
beside it, one folder each, with ``sensor.csv``, ``external.csv`` or ``external.csv.gz`` and
``meta.json``. Per record and driver field one JSON line goes to stdout, a summary to stderr. A
folder may also have ``cards.csv`` with gain and offset per card (reading = gain · true + offset);
then the energy is given once more, calibrated.

Without it, one table: accuracy, coverage and faults, against emulated machines of known energy.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from truth_report import print_report

from wattbench.core.energy import EnergyDomain, EnergyMeasurement, FloatArray, PowerTrace
from wattbench.core.errors import InsufficientCoverage
from wattbench.energy.sensors import NvmlField, measure_nvml
from wattbench.stats import additive_interval

GAIN_LEFT_FRACTION = 0.02
"""Doubt left in a gain that was fitted to the same card in other tests: uniform within ± this."""
OFFSET_LEFT_WATTS = 2.0
"""The same for the offset [W]."""
METER_GAP_S = 0.5
"""Gap of the external meter inside the window from which its energy is no truth [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Driver readings beside an external meter.

    Attributes:
        case: Name of its folder.
        card: Product name, None if not told.
        card_id: Identity of the card, None if not told.
        driver: Version of the driver, None if not told.
        start_s: Window start [s].
        end_s: Window end [s].
        sensor: Times and the fields that have values.
        external_s: Times of the external meter [s].
        external_watts: Its power [W].
    """

    case: str
    card: str | None
    card_id: str | None
    driver: str | None
    start_s: float
    end_s: float
    sensor: pd.DataFrame
    external_s: FloatArray
    external_watts: FloatArray


def read_record(folder: Path) -> Record:
    """Read one folder.

    Raises:
        ValueError: If it has no window or no external power.
        OSError: If a file is missing.
        KeyError: If a column is missing.
    """
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    path = next((p for p in sorted(folder.glob("external.csv*"))), folder / "external.csv")
    external = pd.read_csv(path)
    time_s = pd.to_numeric(external["time_s"], errors="coerce").to_numpy(np.float64)
    watts = pd.to_numeric(external["power_watts"], errors="coerce").to_numpy(np.float64)
    good = np.isfinite(time_s) & np.isfinite(watts)
    order = np.argsort(time_s[good], kind="stable")
    start_s, end_s = _window_s(meta)
    return Record(
        case=folder.name,
        card=meta.get("card"),
        card_id=meta.get("card_id"),
        driver=meta.get("driver_version"),
        start_s=start_s,
        end_s=end_s,
        sensor=pd.read_csv(folder / "sensor.csv"),
        external_s=time_s[good][order],
        external_watts=watts[good][order],
    )


def _window_s(meta: dict[str, Any]) -> tuple[float, float]:
    """The window that the record names, else half a second around its load."""
    window = meta.get("window_s") or (meta.get("energy") or {}).get("window_s")
    if window is None and meta.get("load_s"):
        last_s = meta.get("last_mark_s") or meta["load_s"][-1][1]
        window = (meta["load_s"][0][0] - 0.5, last_s + 0.5)
    if window is None:
        raise ValueError("meta.json has neither window_s nor load_s")
    return float(window[0]), float(window[1])


def between_joules(time_s: FloatArray, watts: FloatArray, start_s: float, end_s: float) -> float:
    """Trapezoid over all samples, with both edges interpolated [J]."""
    inside = (time_s > start_s) & (time_s < end_s)
    edges = np.interp((start_s, end_s), time_s, watts)
    at = np.concatenate([[start_s], time_s[inside], [end_s]])
    return float(np.trapezoid(np.concatenate([edges[:1], watts[inside], edges[1:]]), at))


def external_joules(record: Record) -> tuple[float | None, float | None]:
    """Energy of the external meter over the window [J], None if it has no truth; its gap [s]."""
    time_s = record.external_s
    first = int(np.searchsorted(time_s, record.start_s, side="right")) - 1
    last = int(np.searchsorted(time_s, record.end_s, side="left"))
    if first < 0 or last >= len(time_s):
        return None, None
    gap_s = float(np.diff(time_s[first : last + 1]).max())
    if gap_s > METER_GAP_S:
        return None, gap_s
    return between_joules(time_s, record.external_watts, record.start_s, record.end_s), gap_s


def field_trace(record: Record, field: str) -> PowerTrace | None:
    """Readings of a driver field, None if it is missing or blank."""
    column = f"power_{field}_watts"
    if column not in record.sensor or "time_s" not in record.sensor:
        return None
    time_s = pd.to_numeric(record.sensor["time_s"], errors="coerce").to_numpy(np.float64)
    watts = pd.to_numeric(record.sensor[column], errors="coerce").to_numpy(np.float64)
    stamped = np.isfinite(time_s)
    order = np.argsort(time_s[stamped], kind="stable")
    if np.isfinite(watts[stamped]).sum() < 2:
        return None
    domain = EnergyDomain(
        name=f"{record.case}/{field}",
        meter="nvml",
        quantity="power",
        kind="integrated",
        boundary="board",
        devices=(record.card or "card",),
        method=f"driver field power.{field}",
    )
    return PowerTrace(
        domain=domain, time_s=time_s[stamped][order], power_watts=watts[stamped][order]
    )


def interval_joules(energy: EnergyMeasurement) -> tuple[float, float]:
    """Central 95 % of an energy."""
    low, high = additive_interval(
        energy.energy_joules,
        uniform_half_widths=(
            *energy.gain_half_widths_joules,
            *energy.offset_half_widths_joules,
            energy.coverage_half_width_joules,
        ),
        normal_sd=energy.edge_joules,
    )
    return max(0.0, low), high


def calibration(
    cards: pd.DataFrame | None, record: Record, field: str
) -> tuple[float, float] | None:
    """Gain and offset [W] of a record's card for a field, of its own driver where there is one."""
    if cards is None or not record.card_id or not {"card_id", "gain", "offset_w"} <= set(cards):
        return None
    fits = cards[cards["card_id"].astype(str).str.startswith(record.card_id)]
    fits = fits[fits["gain"].notna() & fits["offset_w"].notna()]
    for column, wanted in (("option", field), ("driver_version", record.driver)):
        same = fits[fits[column].astype(str) == wanted] if column in fits else fits[:0]
        fits = same if len(same) or column == "option" else fits
    if fits.empty:
        return None
    return float(fits["gain"].iloc[0]), float(fits["offset_w"].iloc[0])


def calibrated(energy: EnergyMeasurement, gain: float, offset_watts: float) -> EnergyMeasurement:
    """An energy with a card's known gain and offset taken out: (E − o W) / g."""
    joules = (energy.energy_joules - offset_watts * energy.duration_s) / gain
    return replace(
        energy,
        energy_joules=joules,
        gain_half_widths_joules=(abs(joules) * GAIN_LEFT_FRACTION,),
        offset_half_widths_joules=(energy.duration_s * OFFSET_LEFT_WATTS,),
        edge_joules=energy.edge_joules / gain,
        coverage_half_width_joules=energy.coverage_half_width_joules / gain,
    )


def judged(record: Record, field: NvmlField, cards: pd.DataFrame | None) -> dict[str, Any] | None:
    """One line about a driver field of a record; None if it has no values."""
    trace = field_trace(record, field)
    if trace is None:
        return None
    truth, gap_s = external_joules(record)
    line: dict[str, Any] = {"case": record.case, "field": field, "card": record.card}
    empty = {"value": None, "low": None, "high": None, "covered": None}
    line |= empty | {"external_joules": truth, "external_largest_gap_s": gap_s}
    try:
        energy = measure_nvml(trace, field, record.start_s, record.end_s, card=record.card)
    except InsufficientCoverage as error:
        return line | {"reason": error.reason}
    line |= _figures("", energy, truth)
    good = np.isfinite(trace.power_watts)
    plain = between_joules(
        trace.time_s[good], trace.power_watts[good], record.start_s, record.end_s
    )
    line["plain_trapezoid_error_fraction"] = plain / truth - 1 if truth else None
    line["coverage_half_width_joules"] = energy.coverage_half_width_joules
    fit = calibration(cards, record, field)
    if fit is not None:
        line |= _figures("calibrated_", calibrated(energy, *fit), truth)
    return line


def _figures(prefix: str, energy: EnergyMeasurement, truth: float | None) -> dict[str, Any]:
    low, high = interval_joules(energy)
    value = energy.energy_joules
    return {
        f"{prefix}value": value,
        f"{prefix}low": low,
        f"{prefix}high": high,
        f"{prefix}covered": None if truth is None else bool(low <= truth <= high),
        f"{prefix}error_fraction": value / truth - 1 if truth else None,
    }


def truth_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """One line per record and driver field; a record that cannot be read is told on stderr."""
    path = folder / "cards.csv"
    cards = pd.read_csv(path) if path.is_file() else None
    for record_folder in sorted(p.parent for p in folder.glob("*/meta.json")):
        try:
            record = read_record(record_folder)
        except (OSError, ValueError, KeyError) as error:
            sys.stderr.write(f"{record_folder.name}: cannot be read: {error!r}\n")
            continue
        for field in get_args(NvmlField):
            line = judged(record, field, cards)
            if line is not None:
                yield line


def summary(lines: list[dict[str, Any]]) -> str:
    """How many intervals hold the truth, and how far off the values are."""
    known = [line for line in lines if line["covered"] is not None]
    covered = sum(line["covered"] for line in known)
    ours = [abs(line["error_fraction"]) for line in known]
    plain = [abs(line["plain_trapezoid_error_fraction"]) for line in known]
    fitted = [line for line in known if "calibrated_covered" in line]
    return (
        f"{covered} of {len(known)} intervals hold the external meter ({len(lines) - len(known)} "
        f"without a truth or a value), calibrated {sum(f['calibrated_covered'] for f in fitted)} "
        f"of {len(fitted)}; mean |error| {100 * float(np.mean(ours or [np.nan])):.2f} %, of the "
        f"plain trapezoid {100 * float(np.mean(plain or [np.nan])):.2f} %"
    )


def main() -> None:
    """Run the records of a folder, or without one every section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--truth", type=Path, metavar="DIR", help="folder of records")
    folder: Path | None = parser.parse_args().truth
    if folder is None:
        print_report()
        return
    if not folder.is_dir():
        parser.error(f"{folder} is no folder")
    lines = []
    for line in truth_lines(folder):
        sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
        lines.append(line)
    sys.stderr.write(summary(lines) + "\n")


if __name__ == "__main__":
    main()
