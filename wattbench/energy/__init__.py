"""From traces to joules: integration over a window, sums, and attribution to requests."""

from wattbench.energy.attribution import Attribution, attribute
from wattbench.energy.integrate import CumulativeEnergy, add, cumulative, measure, pool

__all__ = ["Attribution", "CumulativeEnergy", "add", "attribute", "cumulative", "measure", "pool"]
