"""The CPU at hand as a machine profile: what the system tells, and a stated prior on its power.

No operating system tells a CPU's design power, and a virtual machine sees a share of one. Until
a sensor or the user says better, the power at full load is taken per logical processor:

    P_full = n_logical · w,   w uniform in [1.5, 7.5] W

The ends are published design powers over threads: EPYC 9654 (360 W / 192 threads = 1.9 W) and
laptop parts near the low end, desktop parts such as the Core i9-14900K (253 W / 32 = 7.9 W) near
the high end. The centre, 4.5 W, is the value; the span is the interval.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from wattbench.hardware.profile import Figure, MachineProfile, Memory, Power

WATTS_PER_THREAD = (1.5, 7.5)
IDLE_FRACTION = (0.1, 0.5)
"""Idle power over full power: servers idle at a tenth to a half of their design power
(SPECpower_ssj2008 results, https://www.spec.org/power_ssj2008/results/, 2007 to 2025)."""
NAME = "local-cpu"


def detect_cpu(date: str) -> MachineProfile:
    """Profile of this machine's CPU.

    Args:
        date: Today, ``YYYY-MM-DD``, the date of what the system told.
    """
    threads = os.cpu_count() or 1
    low, high = (bound * threads for bound in WATTS_PER_THREAD)
    full = Figure(
        value=(low + high) / 2,
        low=low,
        high=high,
        unit="W",
        evidence="assumed",
        source=f"{threads} logical processors x 1.5 to 7.5 W (prior of wattbench.hardware.detect)",
        date=date,
    )
    low_idle, high_idle = (share * full.value for share in IDLE_FRACTION)
    idle = Figure(
        value=(low_idle + high_idle) / 2,
        low=low_idle,
        high=high_idle,
        unit="W",
        evidence="assumed",
        source="0.1 to 0.5 of full power (prior of wattbench.hardware.detect)",
        date=date,
    )
    return MachineProfile(
        name=NAME,
        title=cpu_title(),
        vendor=_cpuinfo("vendor_id") or "unknown",
        device_class="cpu",
        memory=_memory(date),
        power=Power(boundary="package", tdp=full, idle_context=idle),
    )


def cpu_title() -> str:
    """The CPU's name for itself, with the number of logical processors."""
    model = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} logical processors"


def is_virtual() -> bool:
    """Whether the CPU says that it is a guest's share of another."""
    return "hypervisor" in (_cpuinfo("flags") or "").split()


def _memory(date: str) -> Memory:
    total_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    capacity = Figure(
        value=float(total_bytes),
        unit="B",
        evidence="measured",
        source="the operating system",
        date=date,
    )
    return Memory(level="DDR", capacity=capacity)


def _cpuinfo(key: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    values = (
        line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key
    )
    return next(values, None)
