"""Request traces: recorded, generated, fitted to one another."""

from wattbench.traces.formats import Format
from wattbench.traces.read import read_trace
from wattbench.traces.record import Trace, TraceSource
from wattbench.traces.rows import Rows, read_rows

__all__ = ["Format", "Rows", "Trace", "TraceSource", "read_rows", "read_trace"]
