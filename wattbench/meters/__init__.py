"""Sources of power and energy behind one seam: ``wattbench.core.protocols.Meter``."""
