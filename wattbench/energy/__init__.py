"""From traces to joules: integration over a window, sums, and attribution to requests."""

from wattbench.energy.aliasing import AliasRisk, alias_risk
from wattbench.energy.attribution import Attribution, attribute
from wattbench.energy.cleaning import cleaned, negative_reads, values_of, zero_reads
from wattbench.energy.integrate import CumulativeEnergy, add, cumulative, measure, pool
from wattbench.energy.phases import PhaseEnergy, phase_energy
from wattbench.energy.relative import relative_error_fractions
from wattbench.energy.sensors import SensorBehaviour, characterise, minimum_window_s
from wattbench.energy.uncertainty import BudgetTerm, budget

__all__ = [
    "AliasRisk",
    "Attribution",
    "BudgetTerm",
    "CumulativeEnergy",
    "PhaseEnergy",
    "SensorBehaviour",
    "add",
    "alias_risk",
    "attribute",
    "budget",
    "characterise",
    "cleaned",
    "cumulative",
    "measure",
    "minimum_window_s",
    "negative_reads",
    "phase_energy",
    "pool",
    "relative_error_fractions",
    "values_of",
    "zero_reads",
]
