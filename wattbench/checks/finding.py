"""How a check says what it found."""

from wattbench.core.result import Finding, Scope, Severity
from wattbench.metrics import PointFacts


def of_another_tool(point: PointFacts) -> str | None:
    """``import`` or ``wrap`` if another tool made the load, whose settings are its own."""
    names = {str(run.raw.record.backend.get("name")) for run in point.runs}
    return next((name for name in ("import", "wrap") if name in names), None)


def finding(code: str, severity: Severity, scope: Scope, message: str) -> Finding:
    """A finding, in one line."""
    return Finding(code=code, severity=severity, scope=scope, message=message)
