"""The Token Production Function: closed forms, laws, what may not be mixed, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import called
from hypothesis import given
from hypothesis import strategies as st

from wattbench.core.errors import UsageError
from wattbench.hardware import load_model, load_profile
from wattbench.tpf.bands import Band, exactly
from wattbench.tpf.ceilings import Intensity, ModeOfUse, Production, Supply, node_energy, produce
from wattbench.tpf.levers import LEVERS, find_levers, quality_after_fraction
from wattbench.tpf.operating import filled_like, modelled_points
from wattbench.tpf.published import (
    H100_LOGISTIC,
    LLAMA_2_7B_A100,
    WilkinsEnergy,
    energy_per_query_joules,
    wafer_interactivity_tokens_per_s_per_user,
)

POSITIVE = st.floats(1e-3, 1e9)


def token(
    joules: float = 0.4,
    flops: float = 1.6e10,
    boundary: Any = "node",
    mode: ModeOfUse = "intrinsic",
) -> Intensity:
    """What one token asks for."""
    return Intensity(
        flops_per_token=exactly(flops), energy_joules=exactly(joules), boundary=boundary, mode=mode
    )


def site(watts: float = 1e6, pue: float = 1.25, flops: float = 1e18) -> Supply:
    """What a site gives."""
    return Supply(compute_flops=exactly(flops), grid_power_watts=exactly(watts), pue=exactly(pue))


def test_the_worked_numbers_of_the_function() -> None:
    """1 MW, PUE 1.25, 0.4 J: 2.0e6 tokens/s; 1e18 FLOP/s over 1.6e10: 6.25e7; ratio 31."""
    found = produce(token(), site())
    assert found.energy_ceiling_tokens_per_s.value == pytest.approx(2.0e6)
    assert found.compute_ceiling_tokens_per_s.value == pytest.approx(6.25e7)
    assert found.token_rate_tokens_per_s.value == pytest.approx(2.0e6)
    assert found.binding_constraint == "energy"
    assert found.margin_fraction.value == pytest.approx(1 - 2.0e6 / 6.25e7)
    assert found.log_ratio.value == pytest.approx(3.442, abs=1e-3)
    assert found.elasticities["power"].value == 1
    assert found.elasticities["compute"].value == 0
    assert found.crossover_power_watts.value == pytest.approx(31.25e6)


@given(joules=POSITIVE, flops=POSITIVE, watts=POSITIVE, compute=POSITIVE, scale=st.floats(0.1, 10))
def test_power_and_machines_scaled_together_scale_the_rate(
    joules: float, flops: float, watts: float, compute: float, scale: float
) -> None:
    """Twice the site and twice the machines give twice the tokens, and the same constraint."""
    one = produce(token(joules, flops), site(watts, 1.2, compute))
    more = produce(token(joules, flops), site(scale * watts, 1.2, scale * compute))
    rate = scale * one.token_rate_tokens_per_s.value
    assert more.token_rate_tokens_per_s.value == pytest.approx(rate)
    assert more.log_ratio.value == pytest.approx(one.log_ratio.value, abs=1e-6)


@given(joules=POSITIVE, flops=POSITIVE, compute=POSITIVE, pue=st.floats(1, 2))
def test_the_label_flips_at_the_crossover(
    joules: float, flops: float, compute: float, pue: float
) -> None:
    """A little below the crossover power energy binds, a little above compute does."""
    at = produce(token(joules, flops), site(1.0, pue, compute)).crossover_power_watts.value
    below, above = (
        produce(token(joules, flops), site(at * part, pue, compute)) for part in (0.999, 1.001)
    )
    assert (below.binding_constraint, above.binding_constraint) == ("energy", "compute")
    assert below.margin_fraction.value == pytest.approx(0.001, abs=1e-4)


def test_pue_enters_once() -> None:
    """Joules of the facility hold it, and a PUE below 1 is none."""
    with pytest.raises(UsageError, match="would enter twice"):
        produce(token(boundary="facility"), site())
    with pytest.raises(UsageError, match="below 1"):
        produce(token(), site(pue=0.9))
    assert produce(token(), site(pue=2.5)).energy_ceiling_tokens_per_s.value == pytest.approx(1e6)


@pytest.mark.parametrize("losses", [{"utilisation_fraction": 0.6}, {"system_efficiency_ratio": 2}])
def test_modes_are_not_mixed(losses: dict[str, float]) -> None:
    """Joules as measured hold Φ and U; the intrinsic mode takes them."""
    with pytest.raises(UsageError, match="would enter twice"):
        produce(token(mode="as_measured"), site(), **losses)
    rate = produce(token(), site(), **losses).token_rate_tokens_per_s.value
    assert rate == pytest.approx(2.0e6 * next(iter(losses.values())))


def test_boards_are_brought_to_the_node() -> None:
    """Board joules against node power would overstate the ceiling by the rest of the server."""
    board, node = produce(token(boundary="board"), site()), produce(token(), site())
    ratio = node.energy_ceiling_tokens_per_s.value / board.energy_ceiling_tokens_per_s.value
    assert ratio == pytest.approx(1.8)
    scoped = node_energy(exactly(1.0, "measured"), "board")
    assert scoped.kind == "assumed"
    assert scoped.low == pytest.approx(1.5, abs=0.1)


def uncertain(joules: Band) -> Production:
    """The site's production at joules with a band."""
    return produce(
        Intensity(
            flops_per_token=exactly(1.6e10), energy_joules=joules, boundary="node", mode="intrinsic"
        ),
        site(),
    )


def test_uncertain_joules_give_an_interval() -> None:
    """A band of joules is one of the energy ceiling, upside down, and the rate has it as well."""
    ceiling = uncertain(Band(value=0.4, low=0.2, high=0.8)).energy_ceiling_tokens_per_s
    assert ceiling.low == pytest.approx(1.0e6, rel=0.05)
    assert ceiling.high == pytest.approx(4.0e6, rel=0.05)
    wide = uncertain(Band(value=0.0128, low=0.004, high=0.04))
    assert wide.elasticities["power"].low == 0
    assert wide.elasticities["power"].high == 1


def test_unknown_power_gives_an_interval() -> None:
    """Without a reading under load, joules lie within a decade; without any power, none are."""
    machine, _ = filled_like(load_profile("mi355x"), load_profile("h200-sxm"))
    (found,) = modelled_points(
        machine, load_model("llama-3.1-70b"), [16], input_tokens=512, output_tokens=256
    )
    joules = found.energy_per_output_token_joules
    assert joules.kind == "nameplate"
    assert joules.high / joules.low > 5
    npu = machine.model_copy(update={"power": None})
    with pytest.raises(UsageError, match="no power figure at all"):
        modelled_points(npu, load_model("llama-3.1-70b"), [1], input_tokens=64, output_tokens=64)


def test_the_one_over_w_law() -> None:
    """Tokens per joule halve as the window doubles: The 1/W Law, arXiv 2603.17280."""
    published = {2: 35.00, 4: 17.62, 8: 8.97, 16: 4.69, 32: 2.58, 64: 1.50, 128: 0.885}
    for window, expected in published.items():
        found = H100_LOGISTIC.tokens_per_joule(window * 1024)
        assert found == pytest.approx(expected, rel=0.006)


@pytest.mark.parametrize(
    ("gpus", "tokens_per_s", "watt_hours"),
    [(1, 8125, 0.684), (2, 8062, 1.378), (8, 15611, 2.847), (8, 11092, 4.007), (8, 6300, 7.054)],
)
def test_watt_hours_per_query(gpus: int, tokens_per_s: float, watt_hours: float) -> None:
    """Five models of muxup.com, 8,192 + 1,024 tokens, 2.17 kW a B200."""
    joules = energy_per_query_joules(gpus * 2170.0, tokens_per_s, 8192, 1024)
    assert joules / 3600 == pytest.approx(watt_hours, abs=0.0006)


def test_the_fit_of_wilkins() -> None:
    """ArXiv 2407.04014: 928 J at 32 + 32 tokens; a long prompt gives less than nothing."""
    assert LLAMA_2_7B_A100.query_joules(32, 32) == pytest.approx(928, abs=1)
    with pytest.raises(UsageError, match="does not hold"):
        WilkinsEnergy(
            input_joules=-3.894991, output_joules=31.522735, product_joules=0.042712
        ).query_joules(1200, 32)


@pytest.mark.parametrize(("active", "served"), [(5.1, 2059), (32, 1201), (37, 1350)])
def test_the_wafers_interactivity(active: float, served: float) -> None:
    """tokenomics.info: within its ± 20 % of what is served."""
    found = wafer_interactivity_tokens_per_s_per_user(active * 1e9)
    assert found == pytest.approx(served, rel=0.2)


def test_levers_are_the_published_ratios() -> None:
    """ModeSwitch-LLM, arXiv 2605.23057, and vLLM's own progress."""
    published = {
        "int4-weights": 1.770 / 3.989,
        "speculative": 1.496 / 3.628,
        "prefix-cache": 1.359 / 4.201,
        "engine-upgrade": 0.12 / 0.20,
        "kv-compression": 8.97 / 17.62,
        "mode-routing": 0.48,
    }
    for lever in LEVERS:
        if lever.name in published:
            assert lever.energy_ratio.value == pytest.approx(published[lever.name], abs=0.011)
        assert "arXiv" in lever.source or "ML.ENERGY" in lever.source


def test_a_floor_of_quality_is_never_taken_on_trust() -> None:
    """Below the floor, unknown quality and unpublished cost are refused, each by name."""
    assert quality_after_fraction(0.83, find_levers(["int4-weights"]), 0.75) == pytest.approx(0.79)
    for quality, names, message in (
        (0.83, ["int4-weights"], "below the floor"),
        (None, [], "quality of the model is not given"),
        (0.83, ["fp8"], "'fp8' costs in quality was not published"),
    ):
        with pytest.raises(UsageError, match=message):
            quality_after_fraction(quality, find_levers(names), 0.8)
    with pytest.raises(UsageError, match="no lever 'fp9'"):
        find_levers(["fp9"])


SITE = ("--site-power-mw", "10", "--pue", "1.2", "--count", "8000")
H200 = ("tpf", "ceilings", "--hardware", "h200-sxm", "--model", "llama-3.1-70b")


def ceilings(*more: str) -> dict[str, Any]:
    """What ``tpf ceilings --json`` prints."""
    done = called(*more, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_command_promises_these_numbers() -> None:
    """Each number with its band; the staves beside; the rate is the lower ceiling times U."""
    told = ceilings(*H200, *SITE, "--slo", "tpot<50ms")
    names = ("compute_ceiling_tokens_per_s", "energy_ceiling_tokens_per_s")
    for name in (*names, "token_rate_tokens_per_s", "margin_fraction", "log_ratio"):
        assert set(told[name]) >= {"value", "low", "high"}
    lower = min(told[name]["value"] for name in names)
    assert told["token_rate_tokens_per_s"]["value"] == pytest.approx(lower)
    assert told["binding_constraint"] == "energy"
    assert set(told["staves"]) == {"memory_bandwidth", "kv_capacity", "slo"}
    half = ceilings(*H200, *SITE, "--slo", "tpot<50ms", "--utilisation", "0.5")
    assert half["token_rate_tokens_per_s"]["value"] == pytest.approx(lower / 2)
    cold = ceilings(*H200, *SITE, "--cooling-mw", "1")
    assert cold["binding_stave"] == "cooling"


def test_twice_the_pue_is_half_the_energy_ceiling() -> None:
    """It enters once, and nowhere else."""
    one = ceilings(*H200, "--site-power-mw", "10", "--pue", "1", "--count", "8000")
    two = ceilings(*H200, "--site-power-mw", "10", "--pue", "2", "--count", "8000")
    name = "energy_ceiling_tokens_per_s"
    assert two[name]["value"] == pytest.approx(one[name]["value"] / 2)
    assert two["compute_ceiling_tokens_per_s"] == one["compute_ceiling_tokens_per_s"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--count", "1"), "one replica of the model takes 2"),
        (("--slo", "ttft<1s"), "only TPOT is known here"),
        (("--slo", "tpot<0.01ms"), "no operating point meets TPOT"),
        (("--pue", "0.8"), "0.8"),
        (("--lever", "none"), "there is no lever"),
        (("--quality-floor", "0.7"), "cannot be shown to hold"),
        (("--hardware", "tpu-v7"), "--like NAME"),
    ],
)
def test_what_cannot_be_is_said(more: tuple[str, ...], message: str) -> None:
    """One clear error each."""
    done = called(*H200, *SITE, *more)
    assert done.returncode == 2
    assert message in done.stderr


def test_measured_runs_give_the_joules(tmp_path: Path) -> None:
    """With --runs the joules and the rate are the run's own, and no U may be given."""
    database = str(tmp_path / "r.sqlite")
    run = ("run", "quickstart", "--backend", "emulated", "--hardware", "h100-sxm", "--quiet")
    assert not called(*run, "--concurrency", "1,16", "--db", database).returncode
    base = ("tpf", "ceilings", "--hardware", "h100-sxm", "--model", "llama-3.1-8b")
    asked = ("--site-power-mw", "1", "--pue", "1.25", "--count", "100", "--runs", "latest")
    told = ceilings(*base, *asked, "--db", database)
    points = json.loads(called("show", "latest", "--db", database, "--json").stdout)["points"]
    metrics = points[-1]["metrics"]
    energy = metrics["energy_per_output_token_joules"]["value"]
    assert told["mode"] == "as_measured"
    assert told["energy_per_output_token_joules"]["value"] == pytest.approx(energy)
    rate = 100 * metrics["output_tokens_per_s"]["value"]
    assert told["compute_ceiling_tokens_per_s"]["value"] == pytest.approx(rate)
    assert told["staves"]["memory_bandwidth"]["value"] > rate
    assert "slo" not in told["staves"]
    assert told["output_tokens"] == pytest.approx(
        points[-1]["tokens"]["output"] / points[-1]["requests"]["completed"], rel=0.4
    )
    done = called(*base, *asked, "--db", database, "--utilisation", "0.5")
    assert "would enter twice" in done.stderr
    listed = called("tpf", "checklist", "--runs", "latest", "--db", database, "--json").stdout
    row = json.loads(listed)["points"][-1]
    assert row["binding_constraint"]["value"] == "energy"
    assert row["quality"] == {"value": None, "reason": "not_measured"}
    assert row["pue_adjusted_power_watts"] == {"value": None, "reason": "pue_not_given"}
