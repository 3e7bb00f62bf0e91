"""Routing a trace over a fleet of unlike machines, step by step (docs/simulator.md)."""
