"""Files of other tools in: logs of power and energy."""

from wattbench.interchange.power_log import PowerLog, read_power_log

__all__ = ["PowerLog", "read_power_log"]
