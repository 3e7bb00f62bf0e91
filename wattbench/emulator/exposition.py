"""The Prometheus page of an emulated machine: DCGM names for devices, vLLM names for the server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wattbench.emulator.device import EmulatedMachine
from wattbench.emulator.sensors import Sensor

SOFTWARE_POWER_CAP = 0x4
"""Bit of NVML's clock event reasons."""
CLOCK_MHZ = 1980
IDLE_CELSIUS, CELSIUS_PER_WATT = 34.0, 0.055


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the page shows.

    Attributes:
        machine: The machine.
        sensors: One per device.
        profile: Name of the hardware profile.
        model: Name of the model.
    """

    machine: EmulatedMachine
    sensors: Sequence[Sensor]
    profile: str
    model: str

    def render(self, now_s: float, now_unix_s: float, succeeded: int) -> str:
        """The page at one instant, as text.

        A device whose sensor does not report has no series. A sensor with a clock of its own
        stamps its samples with it [ms].

        Args:
            now_s: Now [s, loop clock].
            now_unix_s: Now [Unix s].
            succeeded: Requests answered so far.
        """
        series: dict[str, list[str]] = {}
        for sensor in self.sensors:
            _device(series, self, sensor, now_s, now_unix_s)
        machine, labels = self.machine, f'{{model_name="{self.model}"}}'
        prompts = sum(stream.prefilled_tokens for stream in machine.streams)
        for name, kind, value in (
            ("vllm:num_requests_running", "gauge", machine.running),
            ("vllm:num_requests_waiting", "gauge", len(machine.waiting)),
            ("vllm:kv_cache_usage_perc", "gauge", machine.kv_used_fraction),
            ("vllm:prompt_tokens_total", "counter", prompts),
            ("vllm:generation_tokens_total", "counter", len(machine.emission_s)),
            ("vllm:request_success_total", "counter", succeeded),
        ):
            series[f"{name} {kind}"] = [f"{name}{labels} {value:.10g}"]
        lines = []
        for head, samples in series.items():
            lines += [f"# TYPE {head}", *samples]
        return "\n".join(lines) + "\n"


def _device(
    series: dict[str, list[str]], page: Page, sensor: Sensor, now_s: float, now_unix_s: float
) -> None:
    update = sensor.last_update(now_s)
    shown = sensor.readings(update, update)
    power, energy = float(shown.power_watts[0]), float(shown.energy_joules[0])
    if math.isnan(power):
        return
    own_clock = ""
    skew_s = float(shown.time_s[0]) - sensor.update_s(update)
    if skew_s:
        own_clock = f" {round((now_unix_s + skew_s) * 1000)}"
    number = sensor.device
    labels = (
        f'{{gpu="{number}",UUID="GPU-emulated-{number:04d}",device="nvidia{number}",'
        f'modelName="{page.profile}",Hostname="emulator"}}'
    )
    throttled = page.machine.throttled_at(now_s)
    busy = page.machine.running > 0
    for name, kind, value in (
        ("DCGM_FI_DEV_POWER_USAGE", "gauge", f"{power:.6f}"),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", f"{energy * 1e3:.0f}"),
        ("DCGM_FI_DEV_GPU_TEMP", "gauge", f"{IDLE_CELSIUS + CELSIUS_PER_WATT * max(0, power):.0f}"),
        ("DCGM_FI_DEV_SM_CLOCK", "gauge", f"{CLOCK_MHZ * (0.6 if throttled else 1):.0f}"),
        ("DCGM_FI_DEV_GPU_UTIL", "gauge", "100" if busy else "0"),
        ("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "gauge", f"{SOFTWARE_POWER_CAP * throttled}"),
    ):
        series.setdefault(f"{name} {kind}", []).append(f"{name}{labels} {value}{own_clock}")
