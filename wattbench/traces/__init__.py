"""Request traces for simulators and replays: recorded, generated, fitted to one another."""

from wattbench.traces.derive import first, like, scaled, sliced, trace_of
from wattbench.traces.formats import Format
from wattbench.traces.generate import diurnal_trace, gamma_trace, poisson_trace
from wattbench.traces.lengths import FixedLengths, Lengths, LengthsOf, LognormalLengths
from wattbench.traces.read import read_trace
from wattbench.traces.record import Trace, TraceSource
from wattbench.traces.rows import Rows, read_rows
from wattbench.traces.spec import trace_from_spec
from wattbench.traces.talk import Talk

__all__ = [
    "FixedLengths",
    "Format",
    "Lengths",
    "LengthsOf",
    "LognormalLengths",
    "Rows",
    "Talk",
    "Trace",
    "TraceSource",
    "diurnal_trace",
    "first",
    "gamma_trace",
    "like",
    "poisson_trace",
    "read_rows",
    "read_trace",
    "scaled",
    "sliced",
    "trace_from_spec",
    "trace_of",
]
