"""Metrics: one declared table, computed from raw records and nothing else."""

from wattbench.metrics.point import PointFacts, PooledDomain, point_facts
from wattbench.metrics.run import RunFacts, Window, run_facts
from wattbench.metrics.table import (
    LATENCIES,
    METRICS,
    QUANTILES,
    RATIOS,
    REASONS,
    LatencySpec,
    MetricSpec,
)
from wattbench.metrics.window import RequestLog, Totals, pooled

__all__ = [
    "LATENCIES",
    "METRICS",
    "QUANTILES",
    "RATIOS",
    "REASONS",
    "LatencySpec",
    "MetricSpec",
    "PointFacts",
    "PooledDomain",
    "RequestLog",
    "RunFacts",
    "Totals",
    "Window",
    "point_facts",
    "pooled",
    "run_facts",
]
