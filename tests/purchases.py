"""Scenarios of ``wattbench procure`` that are made for a test, and what it prints of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from command import called

PLAIN: dict[str, Any] = {
    "name": "plain",
    "about": "One machine, every number exact.",
    "model": "llama-3.1-8b",
    "load": {"input_tokens": 1000, "output_tokens": 100},
    "demand": {"tiers": [{"name": "only", "tokens_per_s_per_user": 5}]},
    "site": {
        "delivered_mw": 1,
        "delivered_at": "grid",
        "pue": 1.25,
        "rack_kw": 40,
        "power_usd_per_kwh": 0.1,
        "grid_gco2e_per_kwh": 400,
        "utilisation_fraction": 0.5,
    },
    "finance": {"lifetime_years": 4},
    "options": [],
}


def exact(value: float, spread: float = 1.0) -> dict[str, Any]:
    """A measured figure with a band of a factor."""
    ends = {"low": value / spread, "high": value * spread}
    return {"value": value, **ends, "kind": "measured"}


def option(
    name: str = "a", *, rate: float = 1000.0, joules: float = 2.0, spread: float = 1.0, **more: Any
) -> dict[str, Any]:
    """An H200 with one measured point of 100 users at the node."""
    point = {
        "concurrency": 100,
        "output_tokens_per_s": exact(rate, spread),
        "energy_per_output_token_joules": exact(joules, spread),
        "boundary": "node",
    }
    found = {
        "name": name,
        "machine": "h200-sxm",
        "devices_per_replica": 1,
        "devices_per_rack": 16,
        "provisioned_watts_per_device": 2500,
        "capex_usd_per_device": 10_000,
        "points": [point],
    }
    return {key: value for key, value in (found | more).items() if value is not None}


def written(folder: Path, *options: dict[str, Any], **changes: Any) -> str:
    """A scenario file; changes by dotted place, with ``__`` between."""
    content = copy.deepcopy(PLAIN) | {"options": list(options)}
    for place, value in changes.items():
        *outer, last = place.split("__")
        inner = content
        for key in outer:
            inner = inner[key]
        inner[last] = value
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def procured(scenario: str, *arguments: str) -> dict[str, Any]:
    """What ``--json`` prints."""
    done = called("procure", scenario, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def figures(shown: dict[str, Any], name: str = "a", case: str = "only") -> dict[str, float]:
    """Values of an option's figures."""
    (found,) = (o for o in shown["outcomes"] if (o["option"], o["case"]) == (name, case))
    assert found["reason"] is None, found["reason"]
    return {key: band["value"] for key, band in found["figures"].items() if band}
