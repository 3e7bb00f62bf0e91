"""Figures: one function, one figure. The only user of matplotlib."""

from wattbench.plots.frontier import frontier

__all__ = ["frontier"]
