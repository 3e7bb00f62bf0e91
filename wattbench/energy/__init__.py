"""From traces to joules: integration over a window, sums, and attribution to requests."""

from wattbench.energy.attribution import Attribution, attribute
from wattbench.energy.cleaning import cleaned, negative_reads, values_of, zero_reads
from wattbench.energy.integrate import CumulativeEnergy, add, cumulative, measure, pool
from wattbench.energy.phases import PhaseEnergy, phase_energy
from wattbench.energy.relative import relative_error_fractions

__all__ = [
    "Attribution",
    "CumulativeEnergy",
    "PhaseEnergy",
    "add",
    "attribute",
    "cleaned",
    "cumulative",
    "measure",
    "negative_reads",
    "phase_energy",
    "pool",
    "relative_error_fractions",
    "values_of",
    "zero_reads",
]
