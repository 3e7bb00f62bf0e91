"""The meter for a machine without sensors: CPU load times design power. Every joule is modelled.

    E(t) = P_full · ( i · t  +  (1 − i) · busy(t) / n )

with busy(t) the CPU time spent outside idle, summed over the n logical processors [s], P_full the
power at full load and i the idle power over P_full. The counter is the busy time the operating
system keeps, so no short burst is missed.

The interval rests on two priors, both uniform, and not on any reading:

    P_full in P_nominal · (1 ± g)       unknown design power, turbo, share of a virtual machine
    i      in i_nominal ± d             unknown idle power and load response

which become a gain of ± g and an offset of ± d · P_nominal. Without ``tdp_watts`` both come from
the detected profile (``wattbench.hardware.detect``): g = 0.67, i = 0.3 ± 0.2. With it, g = 0.25:
packages run from three quarters of their design power (untrained models of CPU power are off by
that and more) to a quarter above it under turbo.

Source: the linear load model of Fan, Weber, Barroso, *Power Provisioning for a Warehouse-sized
Computer*, ISCA 2007, section 4.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from wattbench.core.energy import EnergyDomain
from wattbench.hardware.detect import IDLE_FRACTION, WATTS_PER_THREAD, cpu_title
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source, bracketed
from wattbench.plugins import PluginContext, option

GAIN_WITH_TDP = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuLoadOptions:
    """Options of ``--meter cpu-load``."""

    tdp_watts: float | None = option(None, "design power of the whole package [W]; none: a prior")
    period_s: float = option(0.1, "time between two readings [s]")

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.tdp_watts is not None and not 0.1 <= self.tdp_watts <= 1e5:
            raise ValueError(f"tdp_watts={self.tdp_watts:g} must be from 0.1 to 100000 W")
        if not 0.02 <= self.period_s <= 10.0:
            raise ValueError(f"period_s={self.period_s:g} must be from 0.02 to 10 s")


class CpuLoadMeter(PolledMeter):
    """Turns the CPU's busy time into a modelled energy of the package."""

    Options = CpuLoadOptions

    def __init__(self, options: CpuLoadOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    @staticmethod
    def availability() -> str | None:
        """Why it cannot work here, None if it can."""
        try:
            _busy_s()
        except (OSError, AttributeError) as error:
            return f"the operating system does not tell CPU times: {error}"
        return None

    def open_source(self) -> Source:
        """The CPU times of the operating system."""
        return _CpuTimes(self._options)


class _CpuTimes(Source):
    def __init__(self, options: CpuLoadOptions) -> None:
        threads, (low, high) = os.cpu_count() or 1, WATTS_PER_THREAD
        prior = options.tdp_watts is None
        full_watts = options.tdp_watts or threads * (low + high) / 2
        source = "prior per logical processor" if prior else "given design power"
        domain = EnergyDomain(
            name="cpu_package:0",
            meter="cpu-load",
            quantity="energy_counter",
            kind="modelled",
            boundary="package",
            devices=(cpu_title(),),
            method=f"CPU load x {full_watts:g} W at full load ({source})",
            update_period_s=options.period_s,
            gain_half_width_fraction=(high - low) / (high + low) if prior else GAIN_WITH_TDP,
            offset_half_width_watts=full_watts * (IDLE_FRACTION[1] - IDLE_FRACTION[0]) / 2,
            on_client_host=True,
        )
        self.domains = (domain,)
        self._full_watts, self._threads = full_watts, threads
        self._origin_s: float | None = None
        self._origin_busy_s = _busy_s()

    def read(self, now_s: Clock) -> list[Reading]:
        return [bracketed(now_s, self.domains[0].name, lambda: self._energy_joules(now_s()))]

    def _energy_joules(self, time_s: float) -> float:
        if self._origin_s is None:
            self._origin_s, self._origin_busy_s = time_s, _busy_s()
        idle_fraction = sum(IDLE_FRACTION) / 2
        busy_s = (_busy_s() - self._origin_busy_s) / self._threads
        mean_s = idle_fraction * (time_s - self._origin_s) + (1 - idle_fraction) * busy_s
        return self._full_watts * mean_s


def _busy_s() -> float:
    """CPU time outside idle since boot, all processors together [s]; stolen time is not ours."""
    import psutil

    times = psutil.cpu_times()
    spent_s = times.user + times.system + getattr(times, "nice", 0.0)
    return float(spent_s + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0))
