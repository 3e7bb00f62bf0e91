"""wattbench: how many joules a token costs, and how sure that number is."""

__version__ = "0.1.0"
