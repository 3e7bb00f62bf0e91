"""The definition of docs/simulator.md in plain Python: what the engine is held to.

Nothing jumps here and nothing is foreseen: time goes to the next moment at which anything happens
(a step or a wake ends, a request arrives or reaches a machine, signals are taken), and every
machine (``plain_machine``) computes one step after the other. At one moment, in this order: steps
end, signals are taken, pools scale, arrivals are routed by their number, machines begin what comes
next.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from plain_machine import Asked, Replica, Request, Seen, SiteBill
from plain_prefixes import KeptBlocks
from plain_scaling import Controller

from wattbench.routing.fleet import Fleet

Policy = Callable[[Sequence[Seen], Request], int]
"""Chooses among the routable machines that can ever hold the request, in order of their numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What became of the requests, the machines and the sites."""

    requests: list[Request]
    machines: list[Replica]
    sites: list[SiteBill]
    horizon_s: float


@dataclass(slots=True, kw_only=True)
class Router:
    """Sends requests, by what it may know.

    Attributes:
        machines: The fleet.
        choose: The policy.
        router_s: Its own delay [s].
        signals_every_s: Period of the signals [s]; None: it knows the state of the moment.
        own_sends: Whether it adds what it sent since the last signals.
        signals: The last ones.
        taken: How many it got.
    """

    machines: list[Replica]
    choose: Policy
    router_s: float = 0.0
    signals_every_s: float | None = None
    own_sends: bool = False
    signals: list[Seen] = field(default_factory=list)
    taken: int = 0

    def next_s(self, trace: Trace) -> float:
        """When the next signals are taken: at 0 and every multiple, until all is sent [s]."""
        if self.signals_every_s is None or not trace.unsent():
            return math.inf
        return self.taken * self.signals_every_s

    def listen(self, now_s: float) -> None:
        """Take the signals. Chosen: those of a moment are without the arrivals of that moment."""
        self.signals = [machine.seen(now_s) for machine in self.machines]
        self.taken += 1

    def send(self, request: Request, now_s: float) -> None:
        """Choose a machine; the request is on its way there."""
        if self.signals_every_s is None:
            self.signals = [machine.seen(now_s) for machine in self.machines]
        fits = [machine.may_serve(request) for machine in self.machines]
        number = self.choose([s for s in self.signals if fits[s.machine]], request)
        machine, seen = self.machines[number], self.signals[number]
        request.machine = number
        request.is_sent = machine.pool.role != "prefill" or request.asked.output_tokens == 1
        request.reach_s = now_s + (self.router_s + machine.bill.site.network_s)
        machine.on_the_way.append(request)
        if self.own_sends:
            self.signals[number] = replace(
                seen,
                waiting=seen.waiting + 1,
                outstanding_tokens=seen.outstanding_tokens + machine.whole(request),
            )


def simulate(
    fleet: Fleet,
    asked: Sequence[Asked],
    choose: Policy,
    *,
    router_s: float = 0.0,
    horizon_s: float = 0.0,
    signals_every_s: float | None = None,
    own_sends: bool = False,
    block_tokens: int = 1,
) -> Replay:
    """Replay a trace.

    Chosen: the last completion, to which the machines idle, is the last moment at which a request
    was served or cancelled.
    """
    machines, bills = replicas(fleet, block_tokens)
    router = Router(
        machines=machines,
        choose=choose,
        router_s=router_s,
        signals_every_s=signals_every_s,
        own_sends=own_sends,
    )
    trace, controllers = Trace(asked), controllers_of(fleet, machines)
    while math.isfinite(now_s := min(trace.next_s(), *(each.next_s() for each in machines))):
        scales_s = min((each.next_s() for each in controllers), default=math.inf)
        happen(min(now_s, router.next_s(trace), scales_s), machines, router, trace, controllers)
    end_s = max([horizon_s, *(r.left_s for r in trace.requests if r.left_s is not None)])
    for controller in controllers:
        while controller.next_s() < end_s:
            controller.act(controller.next_s())
    for machine in machines:
        machine.rest(end_s)
    return Replay(requests=trace.requests, machines=machines, sites=bills, horizon_s=end_s)


def happen(
    now_s: float,
    machines: list[Replica],
    router: Router,
    trace: Trace,
    controllers: Sequence[Controller] = (),
) -> None:
    """All that happens at a moment."""
    for machine in machines:
        for parent in machine.end(now_s) if machine.until_s == now_s else []:
            trace.served(parent, now_s)
        for request in machine.move(now_s):
            trace.expect(request, request.arrival_s)
    if router.next_s(trace) == now_s:
        router.listen(now_s)
    for controller in controllers:
        if controller.next_s() == now_s:
            controller.act(now_s)
    for request in trace.arriving(now_s):
        router.send(request, now_s)
    for machine in machines:
        for request in machine.begin(now_s) if machine.until_s is None else []:
            trace.cancel(request)


def controllers_of(fleet: Fleet, machines: Sequence[Replica]) -> list[Controller]:
    """One for each pool that scales; its machines are as they start."""
    found = []
    for pool in fleet.pools:
        if pool.autoscale is not None:
            mine = [machine for machine in machines if machine.pool is pool]
            found.append(Controller(rule=pool.autoscale, machines=mine))
            found[-1].start()
    return found


class Trace:
    """The requests, and which of them arrive when, as far as that is known."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self.requests = [Request(number, each) for number, each in enumerate(asked)]
        self.coming: list[Request] = []
        self.turns: dict[int, list[Request]] = {}
        for request in self.requests:
            if request.asked.parent < 0:
                self.expect(request, request.asked.arrival_s)
            else:
                self.turns.setdefault(request.asked.parent, []).append(request)

    def next_s(self) -> float:
        """The next arrival that is known [s]."""
        return self.coming[0].arrival_s if self.coming else math.inf

    def unsent(self) -> bool:
        """Whether any request is still to be sent."""
        return any(not request.is_sent and not request.status for request in self.requests)

    def arriving(self, now_s: float) -> list[Request]:
        """Take those that arrive now, by their numbers."""
        arrived = [request for request in self.coming if request.arrival_s == now_s]
        self.coming = self.coming[len(arrived) :]
        return arrived

    def served(self, parent: Request, now_s: float) -> None:
        """The turns after one that got its last token now will arrive."""
        for turn in self.turns.get(parent.number, []):
            self.expect(turn, now_s + turn.asked.think_s)

    def cancel(self, request: Request) -> None:
        """Chosen: the turns after a cancelled one are cancelled with it, and never sent."""
        request.status = "cancelled"
        for turn in self.turns.get(request.number, []):
            self.cancel(turn)

    def expect(self, request: Request, arrival_s: float) -> None:
        """It will arrive then."""
        request.arrival_s = arrival_s
        insort(self.coming, request, key=lambda each: (each.arrival_s, each.number))


def replicas(fleet: Fleet, block_tokens: int = 1) -> tuple[list[Replica], list[SiteBill]]:
    """The machines of a fleet by their numbers, and the open bills of its sites."""
    bills = [
        SiteBill(
            site,
            None if site.price_usd_per_kwh is None else 0.0,
            None if site.carbon_gco2e_per_kwh is None else 0.0,
        )
        for site in fleet.sites
    ]
    machines: list[Replica] = []
    for pool in fleet.pools:
        (bill,) = (bill for bill in bills if bill.site.name == pool.site)
        cap = bill.site.cap_watts
        shares = None
        if cap is not None:
            shares = replace(
                cap,
                values=tuple(fleet.share_watts(bill.site, pool.machine, v) for v in cap.values),
            )
        for _ in range(pool.count):
            kept = KeptBlocks(pool.machine.prefix_cache_tokens // block_tokens, block_tokens)
            machines.append(
                Replica(
                    number=len(machines),
                    pool=pool,
                    bill=bill,
                    shares_watts=shares,
                    kept=kept,
                    transfer=fleet.transfer,
                )
            )
    return machines, bills


def round_robin() -> Policy:
    """The next machine by number that can hold the request, after the one chosen last."""
    last = {False: -1, True: -1}

    def choose(view: Sequence[Seen], request: Request) -> int:
        before = last[request.moved]
        chosen = min(view, key=lambda seen: (seen.machine <= before, seen.machine)).machine
        last[request.moved] = chosen
        return chosen

    return choose


def at_random(draws: Sequence[float]) -> Policy:
    """Machine ⌊u·n⌋ of the n that can hold request i, with u = ``draws[i]`` in [0, 1)."""
    return lambda view, request: view[int(draws[request.number] * len(view))].machine


def least_outstanding(view: Sequence[Seen], request: Request) -> int:
    """The machine with the fewest requests."""
    return min(view, key=lambda seen: (seen.outstanding, seen.machine)).machine


def least_tokens(view: Sequence[Seen], request: Request) -> int:
    """The machine whose requests have the fewest tokens, prompts and whole answers."""
    return min(view, key=lambda seen: (seen.outstanding_tokens, seen.machine)).machine


def prefix_affinity(spread: int) -> Policy:
    """The machine that keeps most of the prompt, if it has at most ``spread`` more than others."""

    def choose(view: Sequence[Seen], request: Request) -> int:
        def rank(seen: Seen) -> tuple[int, int, int]:
            kept = seen.kept.leading(request.asked.blocks)
            return -kept, seen.outstanding, seen.machine

        best = min(view, key=rank)
        least = least_outstanding(view, request)
        too_busy = any(best.outstanding > seen.outstanding + spread for seen in view)
        return least if too_busy else best.machine

    return choose


def power_of_two(draws: Sequence[tuple[float, float]]) -> Policy:
    """The less loaded of two unlike machines; ``draws[i]`` in [0, 1) picks them for request i.

    Of the n that can hold it, the first is ⌊u·n⌋, the second ⌊v·(n − 1)⌋ of the others.
    """

    def choose(view: Sequence[Seen], request: Request) -> int:
        first, second = draws[request.number]
        one = view[int(first * len(view))]
        others = [seen for seen in view if seen is not one]
        return least_outstanding([one, *others[int(second * len(others)) :][:1]], request)

    return choose
