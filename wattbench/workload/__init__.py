"""Workload files, sessions and arrivals."""

from wattbench.workload.arrivals import ClosedLoop, OpenLoop
from wattbench.workload.format import (
    ServiceLevel,
    Workload,
    load_workload,
    with_value,
    workload_names,
)
from wattbench.workload.sessions import Session, arrival_times_s, sessions

__all__ = [
    "ClosedLoop",
    "OpenLoop",
    "ServiceLevel",
    "Session",
    "Workload",
    "arrival_times_s",
    "load_workload",
    "sessions",
    "with_value",
    "workload_names",
]
