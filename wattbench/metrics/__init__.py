"""Metrics: one declared table, computed from raw records and nothing else."""

from wattbench.metrics.calibrated import calibration_of
from wattbench.metrics.devices import (
    ATTACHED,
    foreign_process_ids,
    named_devices,
    watched_devices,
    working_devices,
)
from wattbench.metrics.domain_energy import load_periods_s, power_limit_watts
from wattbench.metrics.domains import PooledDomain, pooled_energy
from wattbench.metrics.point import PointFacts, point_facts
from wattbench.metrics.run import RunFacts, charged_domains, run_facts, top_domains
from wattbench.metrics.server import server_means
from wattbench.metrics.table import (
    LATENCIES,
    METRICS,
    QUANTILES,
    RATIOS,
    REASONS,
    LatencySpec,
    MetricSpec,
    keeps_gaps,
    latencies_s,
)
from wattbench.metrics.window import RequestLog, Totals, Window, pooled

__all__ = [
    "ATTACHED",
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
    "calibration_of",
    "charged_domains",
    "foreign_process_ids",
    "keeps_gaps",
    "latencies_s",
    "load_periods_s",
    "named_devices",
    "point_facts",
    "pooled",
    "pooled_energy",
    "power_limit_watts",
    "run_facts",
    "server_means",
    "top_domains",
    "watched_devices",
    "working_devices",
]
