"""Carrying out runs: load, phases and the one clock."""

from wattbench.runner.baseline import deep_idle
from wattbench.runner.clock import RunClock, run_async
from wattbench.runner.environment import environment
from wattbench.runner.load import LiveState
from wattbench.runner.run import RunPlan, execute
from wattbench.runner.wrap import Wrapped, enclose

__all__ = [
    "LiveState",
    "RunClock",
    "RunPlan",
    "Wrapped",
    "deep_idle",
    "enclose",
    "environment",
    "execute",
    "run_async",
]
