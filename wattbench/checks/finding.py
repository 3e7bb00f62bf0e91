"""How a check says what it found."""

from wattbench.core.result import Finding, Scope, Severity


def finding(code: str, severity: Severity, scope: Scope, message: str) -> Finding:
    """A finding, in one line."""
    return Finding(code=code, severity=severity, scope=scope, message=message)
