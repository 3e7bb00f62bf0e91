"""``wattbench tpf ceilings``: what power and compute allow at a site, and which of them binds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click
from rich.table import Table as Printed

from wattbench.cli.options import FiniteRange, database_option, json_option
from wattbench.cli.tables import console
from wattbench.cli.tpf_measured import Basis, measured_basis, modelled_basis
from wattbench.core.errors import UsageError
from wattbench.core.result import Estimate
from wattbench.core.slo import parse_slo
from wattbench.hardware import MachineProfile, ModelDescriptor, load_model, load_profile
from wattbench.tpf.bands import Band, exactly
from wattbench.tpf.ceilings import Production, Supply, produce
from wattbench.tpf.levers import Lever, find_levers, quality_after_fraction
from wattbench.tpf.operating import filled_like
from wattbench.tpf.staves import bandwidth_stave, staves

MW = 1e6
INPUT_TOKENS, OUTPUT_TOKENS = 1024, 256
"""Of a request, where neither the user nor a run says otherwise."""


@click.command(name="ceilings")
@click.option("--hardware", required=True, metavar="NAME", help="Machine profile.")
@click.option("--model", required=True, metavar="NAME", help="Model descriptor or config.json.")
@click.option(
    "--site-power-mw", required=True, type=FiniteRange(0, min_open=True), help="Grid power [MW]."
)
@click.option("--pue", required=True, type=FiniteRange(1), help="Grid power over IT power.")
@click.option("--count", required=True, type=click.IntRange(1), help="Devices at the site.")
@click.option(
    "--devices-per-replica",
    type=click.IntRange(1),
    help="Devices that hold the model once.  [default: the fewest that do]",
)
@click.option("--slo", metavar="tpot<50ms", help="Service level s*.")
@click.option("--quality", type=FiniteRange(0, 1), help="Measured quality of the model, 0 to 1.")
@click.option("--quality-floor", type=FiniteRange(0, 1), help="q*: tokens below do not count.")
@click.option("--input-tokens", type=click.IntRange(1), help="Of a request.  [default: 1024]")
@click.option("--output-tokens", type=click.IntRange(1), help="Of a request.  [default: 256]")
@click.option(
    "--utilisation", type=FiniteRange(0, 1, min_open=True), help="U of the intrinsic mode."
)
@click.option(
    "--system-efficiency", type=FiniteRange(0, 1000, min_open=True), help="Φ of the intrinsic mode."
)
@click.option("--lever", "levers", multiple=True, metavar="NAME", help="What-if; may be repeated.")
@click.option("--cooling-mw", type=FiniteRange(0, min_open=True), help="Heat that can be removed.")
@click.option("--like", metavar="NAME", help="Take blanks of the profile from this one, assumed.")
@click.option("--runs", "selector", metavar="SELECTOR", help="Joules as measured in stored runs.")
@database_option
@json_option
def command(*, hardware: str, model: str, like: str | None, as_json: bool, **asked: Any) -> None:
    """Compute and energy ceilings of a site, which of them binds, and by what margin.

    Without --runs the joules are modelled for a full machine (intrinsic mode), and a utilisation
    may be given. With --runs they are those measured, at the batch and utilisation of the run, and
    the ceiling of compute is the measured rate times the replicas. Site power is grid power; joules
    of boards are brought to the node before the PUE, which enters once.

    \b
    Examples:
      wattbench tpf ceilings --hardware h200-sxm --model llama-3.1-70b \\
        --site-power-mw 10 --pue 1.2 --count 8000 --slo tpot<50ms
      wattbench tpf ceilings --hardware h100-sxm --model llama-3.1-8b --runs tag=sweep \\
        --site-power-mw 1 --pue 1.25 --count 1000 --json
    """  # noqa: D301 - click reads the backslash
    machine = load_profile(hardware)
    taken: tuple[str, ...] = ()
    if like:
        machine, taken = filled_like(machine, load_profile(like))
    shown = _shown(machine, model, taken, **asked)
    if as_json:
        click.echo(json.dumps(shown, allow_nan=False))
    else:
        _print(shown)


def _shown(
    machine: MachineProfile,
    model: str,
    taken: tuple[str, ...],
    *,
    slo: str | None,
    selector: str | None,
    database: str | None,
    **asked: Any,
) -> dict[str, Any]:
    levers = find_levers(asked["levers"])
    quality = quality_after_fraction(asked["quality"], levers, asked["quality_floor"])
    descriptor = load_model(model)
    tpot_s = _tpot_s(slo)
    basis = _basis(machine, descriptor, tpot_s, (selector, database), asked)
    replicas = _replicas(basis, asked["count"], machine.title)
    found = produce(
        basis.intensity_with(levers),
        Supply(
            compute_flops=basis.compute_flops.times(replicas),
            grid_power_watts=exactly(asked["site_power_mw"] * MW, "given"),
            pue=exactly(asked["pue"], "given"),
        ),
        system_efficiency_ratio=asked["system_efficiency"] or 1.0,
        utilisation_fraction=asked["utilisation"] or 1.0,
    )
    limits = _bandwidth(machine, descriptor, basis, replicas)
    cooling_watts = asked["cooling_mw"] * MW if asked["cooling_mw"] else None
    energy = found.node_energy_joules
    limits |= staves(basis.points, basis.met, replicas, energy, cooling_watts)
    if tpot_s is None:
        del limits["slo"]
    lowest = _lowest(found, limits)
    return {
        "schema_version": 1,
        "hardware": machine.name,
        "model": descriptor.name,
        "mode": basis.mode,
        "band_fraction": 0.9,
        **_production_json(found),
        "staves": {name: band.as_json() for name, band in limits.items()},
        "served_rate_tokens_per_s": _all(found, limits)[lowest].as_json(),
        "binding_stave": lowest,
        "replicas": replicas,
        **basis.as_json(),
        "input_tokens": basis.lengths[0],
        "output_tokens": basis.lengths[1],
        "it_power_watts": asked["site_power_mw"] * MW / asked["pue"],
        "levers": [_lever_json(lever) for lever in levers],
        "quality": quality,
        "taken_from_like": list(taken),
    }


def _basis(
    machine: MachineProfile,
    model: ModelDescriptor,
    tpot_s: float | None,
    runs: tuple[str | None, str | None],
    asked: Mapping[str, Any],
) -> Basis:
    """Modelled at the load asked for, or as measured in stored runs."""
    lengths = asked["input_tokens"], asked["output_tokens"]
    devices = asked["devices_per_replica"]
    if runs[0] is None:
        loaded = lengths[0] or INPUT_TOKENS, lengths[1] or OUTPUT_TOKENS
        return modelled_basis(machine, model, tpot_s, loaded, devices)
    if devices or any(lengths):
        raise UsageError(
            "--runs has its own devices and lengths; leave out --devices-per-replica, "
            "--input-tokens and --output-tokens"
        )
    return measured_basis(runs[0], runs[1], machine, model, tpot_s)


def _bandwidth(
    machine: MachineProfile, model: ModelDescriptor, basis: Basis, replicas: int
) -> dict[str, Band]:
    """The stave of memory bandwidth; none where the roofline cannot cut the model so."""
    context_tokens = basis.lengths[0] + basis.lengths[1] / 2
    users = round(max(point.concurrency_count for point in basis.met))
    devices = basis.chosen.device_count
    try:
        rate = bandwidth_stave(machine, model, users, context_tokens, replicas, devices)
    except UsageError:
        if basis.mode == "intrinsic":
            raise
        return {}
    return {"memory_bandwidth": rate}


def _replicas(basis: Basis, count: int, machine: str) -> int:
    each = basis.chosen.device_count
    if count < each:
        raise UsageError(f"--count {count}: one replica of the model takes {each} {machine}")
    return count // each


def _tpot_s(slo: str | None) -> float | None:
    if slo and not slo.strip().startswith("tpot"):
        raise UsageError(f"--slo {slo!r}: only TPOT is known here, written as tpot<50ms")
    objectives = parse_slo(slo) if slo else ()
    other = [str(each) for each in objectives if each.latency != "tpot_s"]
    if other or len(objectives) > 1:
        raise UsageError(
            f"--slo {slo!r}: operating points of a whole fleet know TPOT alone, as tpot<50ms; "
            f"the others are checked by wattbench search on a real engine"
        )
    return objectives[0].limit_s if objectives else None


def _lever_json(lever: Lever) -> dict[str, Any]:
    return {
        "name": lever.name,
        "energy_ratio": lever.energy_ratio.as_json(),
        "flops_ratio": lever.flops_ratio.as_json(),
        "quality_change_fraction": lever.quality_change_fraction,
        "source": lever.source,
    }


def _production_json(found: Production) -> dict[str, Any]:
    return {
        "compute_ceiling_tokens_per_s": found.compute_ceiling_tokens_per_s.as_json(),
        "energy_ceiling_tokens_per_s": found.energy_ceiling_tokens_per_s.as_json(),
        "token_rate_tokens_per_s": found.token_rate_tokens_per_s.as_json(),
        "binding_constraint": found.binding_constraint,
        "margin_fraction": _signed(found.margin_fraction),
        "log_ratio": _signed(found.log_ratio),
        "elasticities": {name: _signed(each) for name, each in found.elasticities.items()},
        "crossover_site_power_mw": found.crossover_power_watts.times(1 / MW).as_json(),
        "node_energy_per_output_token_joules": found.node_energy_joules.as_json(),
    }


def _signed(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _all(found: Production, limits: Mapping[str, Band]) -> dict[str, Band]:
    return {
        "compute": found.compute_ceiling_tokens_per_s,
        "energy": found.energy_ceiling_tokens_per_s,
        **limits,
    }


def _lowest(found: Production, limits: Mapping[str, Band]) -> str:
    bands = _all(found, limits)
    return min(bands, key=lambda name: bands[name].value)


def _print(shown: Mapping[str, Any]) -> None:
    out = console()
    out.print(
        f"{shown['hardware']}, {shown['model']}: {shown['replicas']} replicas of "
        f"{shown['devices_per_replica']} devices, {shown['it_power_watts'] / MW:.4g} MW of IT "
        f"power, {shown['mode'].replace('_', ' ')}",
        soft_wrap=True,
    )
    table = Printed("limit", "tokens/s", "90 % band", "known by")
    rows = {
        "compute ceiling": shown["compute_ceiling_tokens_per_s"],
        "energy ceiling": shown["energy_ceiling_tokens_per_s"],
        **{name.replace("_", " "): each for name, each in shown["staves"].items()},
    }
    for name, band in rows.items():
        table.add_row(name, *_cells(band))
    table.add_section()
    table.add_row("token rate (Φ, U in)", *_cells(shown["token_rate_tokens_per_s"]))
    out.print(table)
    margin, energy = shown["margin_fraction"], shown["node_energy_per_output_token_joules"]
    out.print(
        f"Of compute and energy, {shown['binding_constraint']} binds, by a margin of "
        f"{margin['value']:.0%} ({margin['low']:.0%} to {margin['high']:.0%}); the two are equal "
        f"at {shown['crossover_site_power_mw']['value']:.4g} MW. Lowest of all limits: "
        f"{shown['binding_stave'].replace('_', ' ')}.",
        soft_wrap=True,
    )
    out.print(
        f"A token takes {energy['value']:.3g} J at the node ({energy['low']:.3g} to "
        f"{energy['high']:.3g}, {energy['kind']}), at {shown['concurrency']:g} users a replica.",
        soft_wrap=True,
    )
    for lever in shown["levers"]:
        ratio = lever["energy_ratio"]
        out.print(
            f"{lever['name']}: joules × {ratio['value']:g}. {lever['source']}", soft_wrap=True
        )
    if shown["taken_from_like"]:
        out.print(f"Assumed, from another machine: {', '.join(shown['taken_from_like'])}.")


def _cells(band: Mapping[str, Any]) -> tuple[str, str, str]:
    span = f"{band['low']:,.0f} to {band['high']:,.0f}"
    return f"{band['value']:,.0f}", span, band["kind"]
