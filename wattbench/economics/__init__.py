"""What to buy: machines, cost and carbon at a site, with intervals, and what to measure first."""

from wattbench.economics.compare import Comparison, Swing, break_even, compare, tornado
from wattbench.economics.conventions import inferencex
from wattbench.economics.evaluate import Outcome, evaluate
from wattbench.economics.figures import FIGURES
from wattbench.economics.pack import write_pack
from wattbench.economics.rfp import Request, requests_for
from wattbench.economics.scenario import Scenario, load_scenario, scenario_names
from wattbench.economics.site import Footprint, Plan, Room, plan_racks
from wattbench.economics.supply import Line, lines_of

__all__ = [
    "FIGURES",
    "Comparison",
    "Footprint",
    "Line",
    "Outcome",
    "Plan",
    "Request",
    "Room",
    "Scenario",
    "Swing",
    "break_even",
    "compare",
    "evaluate",
    "inferencex",
    "lines_of",
    "load_scenario",
    "plan_racks",
    "requests_for",
    "scenario_names",
    "tornado",
    "write_pack",
]
