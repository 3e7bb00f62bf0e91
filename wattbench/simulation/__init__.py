"""Routing policies over a fleet of unlike machines: scenarios, replays, what came of them."""

from wattbench.simulation.frames import SimulationFrames, frames_of, requests_of, simulate
from wattbench.simulation.plan import Plan, plan_of
from wattbench.simulation.results import as_json
from wattbench.simulation.run import Outcome, compile_kernels, is_compiled, play
from wattbench.simulation.scenario import Scenario, load_scenario, scenario_names, scenario_text

__all__ = [
    "Outcome",
    "Plan",
    "Scenario",
    "SimulationFrames",
    "as_json",
    "compile_kernels",
    "frames_of",
    "is_compiled",
    "load_scenario",
    "plan_of",
    "play",
    "requests_of",
    "scenario_names",
    "scenario_text",
    "simulate",
]
