"""Workload files, sessions and arrivals."""

from wattbench.workload.arrivals import (
    ClosedLoop,
    GammaLoop,
    OpenLoop,
    Schedule,
    arrival_times_s,
    schedule_times_s,
)
from wattbench.workload.format import (
    ServiceLevel,
    Workload,
    load_workload,
    with_value,
    workload_names,
)
from wattbench.workload.sessions import Session, scheduled_sessions, sessions

__all__ = [
    "ClosedLoop",
    "GammaLoop",
    "OpenLoop",
    "Schedule",
    "ServiceLevel",
    "Session",
    "Workload",
    "arrival_times_s",
    "load_workload",
    "schedule_times_s",
    "scheduled_sessions",
    "sessions",
    "with_value",
    "workload_names",
]
