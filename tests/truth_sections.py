"""Measured against a machine of known energy: accuracy, coverage, faults. For tests and the bench.

Everything here computes the truth from the emulated machine alone, and priors from the test.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from emulation import emulated_run, varied_workload
from numpy.typing import NDArray

from wattbench.core.energy import EnergyMeasurement
from wattbench.emulator import EmulatedMachine, WindowTruth, truth
from wattbench.energy import relative_error_fractions
from wattbench.meters.emulated import EmulatedMeterOptions
from wattbench.metrics import RunFacts, run_facts
from wattbench.metrics.domains import energy_estimate
from wattbench.stats import combined_interval
from wattbench.store import connect, database_url
from wattbench.workload import Workload

GAIN_HALF_WIDTH_FRACTION = 0.05
OFFSET_HALF_WIDTH_WATTS = 5.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run: what was measured, and what was true in the same window."""

    facts: RunFacts
    truth: WindowTruth
    machine: EmulatedMachine

    @property
    def energy(self) -> EnergyMeasurement:
        """The measured energy of the window."""
        assert isinstance(self.facts.headline, EnergyMeasurement)
        return self.facts.headline

    @property
    def joules_per_token_error(self) -> float:
        """Relative error of J/output token."""
        assert self.facts.totals is not None
        ours = self.energy.energy_joules / self.facts.totals.output_tokens
        return abs(ours / (self.truth.energy_joules / self.truth.output_tokens) - 1)


def random_workload(rng: np.random.Generator) -> Workload:
    """Short random lengths, a window of 10 to 13 s that is no multiple of 0.1 s."""
    middle = float(rng.uniform(30, 500))
    return varied_workload(
        session={
            "input_tokens": {"kind": "lognormal", "median": middle, "sigma": 0.8, "high": 4000},
            "output_tokens": {
                "kind": "lognormal",
                "median": float(rng.uniform(20, 300)),
                "sigma": 0.6,
                "high": 1500,
            },
        },
        idle_s=0.5,
        warmup={"duration_s": 0.5, "requests_per_user": 0},
        measure={"duration_s": 10 + float(rng.uniform(0.01, 3.0))},
    )


def measured_run(seed: int, sensor: EmulatedMeterOptions, engine: sa.Engine) -> Measured:
    """A run of a random workload through a sensor."""
    rng = np.random.default_rng((seed, 1))
    concurrency = int(2 ** rng.uniform(0, 5))
    raw, machine = emulated_run(
        engine,
        random_workload(rng),
        concurrency=concurrency,
        seed=seed,
        run_id=f"run-{seed}",
        sensor=sensor,
    )
    facts = run_facts(raw)
    assert facts.window is not None
    found = truth(machine, facts.window.start_s, facts.window.end_s)
    return Measured(facts=facts, truth=found, machine=machine)


def measured_runs(seeds: range, sensors: list[EmulatedMeterOptions]) -> list[Measured]:
    """Runs with a sensor each, in one throw-away database."""
    with tempfile.TemporaryDirectory() as folder:
        engine = connect(database_url(f"{folder}/runs.sqlite"), create=True)
        try:
            pairs = zip(seeds, sensors, strict=True)
            return [measured_run(seed, sensor, engine) for seed, sensor in pairs]
        finally:
            engine.dispose()


def accuracy(seeds: range) -> NDArray[np.float64]:
    """Relative errors of J/output token with ideal 100 ms counters."""
    runs = measured_runs(seeds, [EmulatedMeterOptions() for _ in seeds])
    return np.array([run.joules_per_token_error for run in runs])


def prior_sensor(rng: np.random.Generator) -> EmulatedMeterOptions:
    """A sensor whose gain and offset are drawn from the priors that the meter is told.

    The prior is on truth over reading, so the sensor shows (truth − offset) / (1 + g).
    """
    gain = 1 + rng.uniform(-1, 1) * GAIN_HALF_WIDTH_FRACTION
    offset_watts = rng.uniform(-1, 1) * OFFSET_HALF_WIDTH_WATTS
    return EmulatedMeterOptions(
        gain=1 / gain,
        offset_watts=-offset_watts,
        gain_half_width_fraction=GAIN_HALF_WIDTH_FRACTION,
        offset_half_width_watts=OFFSET_HALF_WIDTH_WATTS,
    )


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How often intervals hold the truth, and how wide they are beside an oracle's."""

    covered: float
    width_ratio: float


def absolute_coverage(seeds: range) -> Coverage:
    """Absolute intervals of energy; the oracle knows the priors and nothing else is unsure."""
    rng = np.random.default_rng((seeds.start, 2))
    runs = measured_runs(seeds, [prior_sensor(rng) for _ in seeds])
    inside, ratios = [], []
    for run in runs:
        shown = energy_estimate(run.energy)
        assert shown.low is not None
        assert shown.high is not None
        inside.append(shown.low <= run.truth.energy_joules <= shown.high)
        ratios.append((shown.high - shown.low) / 2 / oracle_half_width_joules(run))
    return Coverage(covered=float(np.mean(inside)), width_ratio=float(np.median(ratios)))


def oracle_half_width_joules(run: Measured) -> float:
    """Half-width of the central 95 % of gain · E + offset · T, by plain Monte Carlo."""
    rng = np.random.default_rng(3)
    gain = rng.uniform(-1, 1, 40_000) * GAIN_HALF_WIDTH_FRACTION * run.energy.energy_joules
    offset = rng.uniform(-1, 1, 40_000) * OFFSET_HALF_WIDTH_WATTS * run.energy.duration_s
    low, high = np.quantile(gain + offset, (0.025, 0.975))
    return float(high - low) / 2


def relative_coverage(seeds: range) -> Coverage:
    """Intervals of the ratio of two configurations on one device with one unknown sensor."""
    rng = np.random.default_rng((seeds.start, 4))
    sensors = [sensor for _ in seeds for sensor in [prior_sensor(rng)] * 2]
    doubled = range(2 * seeds.start, 2 * seeds.start + 2 * len(seeds))
    runs = measured_runs(doubled, sensors)
    inside, ratios = [], []
    for first, second in zip(runs[::2], runs[1::2], strict=True):
        value = first.energy.energy_joules / second.energy.energy_joules
        uniform, sd = relative_error_fractions(first.energy, second.energy)
        low, high = combined_interval(
            value, uniform_half_width_fractions=uniform, normal_sd_fraction=sd
        )
        true = first.truth.energy_joules / second.truth.energy_joules
        inside.append(low <= true <= high)
        ratios.append((high - low) / 2 / oracle_ratio_half_width(first, second))
    return Coverage(covered=float(np.mean(inside)), width_ratio=float(np.median(ratios)))


def oracle_ratio_half_width(first: Measured, second: Measured) -> float:
    """Half-width of the central 95 % of the ratio over the priors, exactly as they act on it."""
    rng = np.random.default_rng(5)
    gain = 1 + rng.uniform(-1, 1, 40_000) * GAIN_HALF_WIDTH_FRACTION
    offset_watts = rng.uniform(-1, 1, 40_000) * OFFSET_HALF_WIDTH_WATTS
    above, below = (
        run.energy.energy_joules * gain + offset_watts * run.energy.duration_s
        for run in (first, second)
    )
    low, high = np.quantile(above / below, (0.025, 0.975))
    return float(high - low) / 2
