"""Reasons to doubt a result: named checks over the raw facts of an operating point."""

from wattbench.checks.meters import METER_CHECKS
from wattbench.checks.point import CHECKS, check_point, verdict

__all__ = ["CHECKS", "METER_CHECKS", "check_point", "verdict"]
