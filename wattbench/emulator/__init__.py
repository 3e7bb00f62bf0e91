"""A machine of known timing and known energy, to measure against."""

from wattbench.emulator.device import EmulatedDevice, PowerTimeline, Stream

__all__ = ["EmulatedDevice", "PowerTimeline", "Stream"]
