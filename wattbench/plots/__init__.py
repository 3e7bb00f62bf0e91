"""Figures: one function, one figure. The only user of matplotlib."""

from wattbench.plots.frontier import frontier
from wattbench.plots.policies import policies

__all__ = ["frontier", "policies"]
