"""Compile the simulator's kernels, so that no test has to; `make test` does it beside the tests."""

from __future__ import annotations

import numpy as np

from wattbench.routing import choice
from wattbench.routing.fleet import Fleet, Machine, Pool
from wattbench.routing.policies import Arrival, FleetView
from wattbench.routing.replay import replay
from wattbench.routing.step import StepModel, affine
from wattbench.routing.world import Demand
from wattbench.simulation import compile_kernels


class _First:
    def choose(self, view: FleetView, arrival: Arrival) -> int:
        del view, arrival
        return 0


def main() -> None:
    """The built-in policies' kernels, then those that policies in Python call."""
    compile_kernels()
    machine = Machine(
        name="one",
        step=StepModel(memory=affine(base=1.0)),
        max_batch=1,
        max_step_tokens=2,
        kv_capacity_tokens=9,
        idle_watts=0.0,
    )
    fleet = Fleet(pools=(Pool(machine=machine, count=1, site="site"),))
    ones = np.ones(2, dtype=np.int32)
    demand = Demand(arrival_s=np.zeros(2), input_tokens=ones, output_tokens=ones)
    run = replay(fleet, demand, _First())
    run.close(9.0)
    choice.uniform(0, 0, 0)


if __name__ == "__main__":
    main()
