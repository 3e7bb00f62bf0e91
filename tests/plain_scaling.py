"""A pool's controller in the plain simulator: which of its machines are on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from plain_machine import Replica

from wattbench.routing.fleet import Autoscale


@dataclass(slots=True, kw_only=True)
class Controller:
    """Turns the machines of one pool on and off.

    Attributes:
        rule: By what.
        machines: Of the pool, by their numbers.
        decided: Decisions so far.
    """

    rule: Autoscale
    machines: list[Replica]
    decided: int = 0

    def start(self) -> None:
        """Time 0: all but the first ones are off."""
        for machine in self.machines[self.rule.min_count :]:
            machine.power = "down"

    def next_s(self) -> float:
        """The next decision, or when the next machine is ready [s]."""
        ready_s = [machine.ready_s for machine in self.machines if machine.power == "coming"]
        return min([(self.decided + 1) * self.rule.every_s, *ready_s])

    def act(self, now_s: float) -> None:
        """Whatever happens now."""
        for machine in self._with("coming"):
            if machine.ready_s <= now_s:
                machine.provisioned(now_s)
                machine.power = "on"
        if (self.decided + 1) * self.rule.every_s == now_s:
            self.decided += 1
            self._decide(now_s)
            if self.rule.provision_s == 0:
                self.act(now_s)

    def _decide(self, now_s: float) -> None:
        outstanding = sum(machine.seen(now_s).outstanding for machine in self.machines)
        wanted = math.ceil(outstanding / self.rule.outstanding_per_machine)
        wanted = min(max(wanted, self.rule.min_count), len(self.machines))
        routable, coming = self._with("on"), self._with("coming")
        missing = wanted - len(routable) - len(coming)
        down = self._with("down")
        working = [m for m in down if m.has_any()]
        for machine in [*working, *(m for m in down if m not in working)][: max(0, missing)]:
            if machine.has_any():
                machine.power = "on"
            else:
                machine.provision(now_s, now_s + self.rule.provision_s)
        spare = min(-missing, len(routable) - self.rule.min_count)
        for machine in reversed(routable):
            if spare > 0:
                machine.go_down(now_s)
                spare -= 1

    def _with(self, power: str) -> list[Replica]:
        return [machine for machine in self.machines if machine.power == power]
