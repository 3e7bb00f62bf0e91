"""Rows of the ML.ENERGY leaderboard for language models, as JSON or CSV.

Source: ml-energy/leaderboard-v2 c3af7f31. Energy and throughput are of one steady window, the
energy of all boards of the engine (Zeus reads their counters). No row tells the length of that
window or of the prompts, so only ratios follow: J per output token = energy per request / mean
output tokens, and watts = that times output tokens per second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from wattbench.core.run import Json
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.measurement import Measurement
from wattbench.interchange.results.table import header_of, rows_of

NAME = "mlenergy"
ENERGY, OUTPUT, RATE = "Energy/req (J)", "Avg Output Tokens", "Token tput (tok/s)"
_NUMERIC = (ENERGY, OUTPUT, RATE, "TP", "PP", "Avg TPOT (s)", "Avg BS (reqs)", "Max BS (reqs)")


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    first = glance.first[0] if isinstance(glance.first, list) and glance.first else glance.first
    keys = set(first) if isinstance(first, dict) else set(header_of(glance))
    if not keys >= {ENERGY, OUTPUT, RATE}:
        return None
    return "csv" if glance.form == "text" else "json"


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each row."""
    for glance in glances:
        rows: Iterator[tuple[str, Any]] = (
            rows_of(glance, _NUMERIC) if glance.form == "text" else glance.objects()
        )
        for place, value in rows:
            yield _measurement(Fields(place, value), sniff(glance) or "json")


def _measurement(fields: Fields, layout: str) -> Measurement:
    tokens = fields.number(OUTPUT)
    if tokens is not None and tokens <= 0:
        raise fields.bad(OUTPUT, tokens, "not a number of tokens")
    energy_joules = fields.number(ENERGY)
    if energy_joules is not None and energy_joules <= 0:
        raise fields.bad(ENERGY, energy_joules, "not an energy")
    rate = fields.report(RATE, "output_tokens_per_s")
    fields.report(ENERGY, "energy_per_request_joules")
    fields.report(OUTPUT, "output_tokens_per_request")
    if tokens:
        why = f"over {OUTPUT}"
        fields.report(ENERGY, "energy_per_output_token_joules", scale_ratio=1 / tokens, why=why)
        if rate:
            why = f"over {OUTPUT}, times {RATE}: all boards together"
            fields.report(ENERGY, "mean_power_watts", scale_ratio=rate / tokens, why=why)
    fields.report("Avg TPOT (s)", "tpot_s", "mean")
    fields.report("Avg BS (reqs)", "requests_in_flight_count", "mean")
    tp, pp = fields.count("TP"), fields.count("PP")
    point: dict[str, Json] = {}
    for name, key in (("Max BS (reqs)", "max_batch_size"), ("TP", "tp"), ("PP", "pp")):
        value = fields.count(name)
        if value is not None:
            fields.note("taken", name)
            point[key] = value
    return Measurement(
        tool=NAME,
        layout=layout,
        model=fields.text("model_id") or fields.text("Model"),
        hardware=fields.text("GPU") or fields.text("gpu_dir"),
        device_count=tp * (pp or 1) if tp else None,
        operating_point=point,
        workload={"name": fields.text("task") or NAME},
        reported=fields.reported,
        boundary="board" if energy_joules else None,
        energy_method="counters of all boards of the engine over a steady window",
        notes=fields.notes(),
    )
