"""Engines behind one seam: ``wattbench.core.protocols.Backend``."""
