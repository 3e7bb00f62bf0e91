"""A machine of the plain simulator: one step after the other, as docs/simulator.md says.

Where the page leaves something open, it is chosen here, marked "Chosen:".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from plain_prefixes import KeptBlocks

from wattbench.routing.fleet import Pool, Series, Site, Transfer

Part = Literal["overhead", "decode", "prefill", "idle", "sleep", "wake", "off", "transfer"]
PARTS: tuple[Part, ...] = get_args(Part)
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a trace; a turn with a ``parent`` arrives ``think_s`` after its last token."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    priority: int = 0
    patience_s: float = math.inf
    parent: int = -1
    think_s: float = 0.0
    blocks: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Request:
    """A request on its way, and at the end what became of it.

    Attributes:
        number: Its place in the trace.
        asked: What the trace says.
        arrival_s: When it arrives; of a turn, known once its parent is served [s].
        machine: The one that it was sent to last; None: never, as its parent was cancelled.
        prefill_machine: The one that gave its first token; None: not another one.
        moved: Whether it is on its way from there, or waits, with its KV memory.
        is_sent: Whether it was sent to where it is to end.
        reach_s: When it reaches its machine [s].
        produced: Tokens of its answer so far.
        prefilled: Prompt tokens found kept, or computed, since it was admitted.
        decoding: Whether its prompt is complete.
        was_admitted: Whether it ever was; such a one is not cancelled.
        wait_s: From its first machine to its first admission [s].
        preemptions: How often it lost its memory.
        first_token_s: End of the step that gave its first token [s].
        finish_s: End of the step that gave its last token [s].
        hit_tokens: Of its prompt, found kept when it was first admitted.
        left_s: When it was served or cancelled [s]; None: never sent.
        status: What became of it.
    """

    number: int
    asked: Asked
    arrival_s: float = math.nan
    machine: int | None = None
    prefill_machine: int | None = None
    moved: bool = False
    is_sent: bool = False
    reach_s: float = math.nan
    produced: int = 0
    prefilled: int = 0
    decoding: bool = False
    was_admitted: bool = False
    wait_s: float | None = None
    preemptions: int = 0
    first_token_s: float | None = None
    finish_s: float | None = None
    hit_tokens: int = 0
    left_s: float | None = None
    status: Literal["", "served", "cancelled"] = ""

    @property
    def context_tokens(self) -> int:
        """Prompt and answer so far: the context of its next decode step, or what is prefilled."""
        return self.asked.input_tokens + self.produced

    @property
    def total_tokens(self) -> int:
        """Prompt and whole answer."""
        return self.asked.input_tokens + self.asked.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the router knows of a machine.

    Chosen: a request is outstanding, and waiting, from the moment it is sent, also on its way. One
    that a boundary before the moment admitted is running; a boundary at the very moment has let
    those with all their tokens go, but has admitted, cancelled or preempted nobody yet. ``idle``
    and ``asleep`` tell of the machine itself, whatever is on its way to it. ``kept`` is what it
    keeps at any moment, not at that of the signals.
    """

    machine: int
    waiting: int
    running: int
    outstanding_tokens: int
    idle: bool
    asleep: bool
    kept: KeptBlocks

    @property
    def outstanding(self) -> int:
        """Requests sent there and not done."""
        return self.waiting + self.running


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that was computed: its size is (B, K, P, Q)."""

    machine: int
    start_s: float
    end_s: float
    size: tuple[int, int, int, int]
    cap_watts: float
    joules: float


@dataclass(slots=True)
class SiteBill:
    """What a site paid and emitted, at its meter; None: no series."""

    site: Site
    cost_usd: float | None
    emissions_gco2e: float | None

    def add(self, joules: float, start_s: float, end_s: float) -> None:
        """Book energy of the site's machines that flowed evenly between two moments."""
        kwh = joules * self.site.pue / JOULES_PER_KWH
        if self.cost_usd is not None and self.site.price_usd_per_kwh is not None:
            self.cost_usd += kwh * mean_value(self.site.price_usd_per_kwh, start_s, end_s)
        if self.emissions_gco2e is not None and self.site.carbon_gco2e_per_kwh is not None:
            self.emissions_gco2e += kwh * mean_value(self.site.carbon_gco2e_per_kwh, start_s, end_s)


def mean_value(series: Series, start_s: float, end_s: float) -> float:
    """Mean of a series over a time; of a moment, its value then."""
    if end_s <= start_s:
        return series.at(start_s)
    total = 0.0
    for place, (at_s, value) in enumerate(zip(series.at_s, series.values, strict=True)):
        until_s = series.at_s[place + 1] if place + 1 < len(series.at_s) else math.inf
        total += value * max(0.0, min(end_s, until_s) - max(start_s, at_s))
    return total / (end_s - start_s)


@dataclass(slots=True, kw_only=True)
class Replica:
    """One machine of the fleet.

    Attributes:
        number: Its number in the fleet.
        pool: The kind of machine.
        bill: Of the site where it stands.
        shares_watts: Its share of each value of the site's cap [W].
        kept: Blocks of prompts.
        on_the_way: Sent and not yet here, in the order in which they will reach it.
        queue: Reached and not admitted, the head first.
        admitted: Decoding ones and those with a prompt under way, in the order of admission.
        chunks: Prompt tokens of the step that runs, for those that get any.
        until_s: End of the step or wake that runs [s]; None: at a boundary, or idle.
        idle_since_s: Idle or off since then, or provisioned [s]; None: it works.
        power: ``down``: it is sent nothing, and off once it has nothing left.
        ready_s: When it was or will be ready to be sent requests [s].
        joules: Energy in its parts [J].
        busy_s: Time in steps [s].
        steps: All steps.
        transfer: What it takes to move a request to a decode machine.
        moving: Requests that got their first token here and go on.
    """

    number: int
    pool: Pool
    bill: SiteBill
    shares_watts: Series | None
    kept: KeptBlocks
    transfer: Transfer | None = None
    on_the_way: list[Request] = field(default_factory=list)
    queue: list[Request] = field(default_factory=list)
    admitted: list[Request] = field(default_factory=list)
    chunks: dict[int, int] = field(default_factory=dict)
    until_s: float | None = None
    idle_since_s: float | None = 0.0
    power: Literal["on", "down", "coming"] = "on"
    ready_s: float = 0.0
    joules: dict[Part, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    busy_s: float = 0.0
    steps: list[Step] = field(default_factory=list)
    moving: list[Request] = field(default_factory=list)

    def seen(self, now_s: float) -> Seen:
        """Its state at a moment."""
        here = [*self.on_the_way, *self.queue, *self.admitted]
        return Seen(
            machine=self.number,
            waiting=len(self.on_the_way) + len(self.queue),
            running=len(self.admitted),
            outstanding_tokens=sum(self.whole(request) for request in here),
            idle=self.idle_since_s is not None,
            kept=self.kept,
            asleep=self.idle_since_s is not None and now_s > self.sleeps_at_s(self.idle_since_s),
        )

    def sleeps_at_s(self, idle_since_s: float) -> float:
        """When it falls asleep. Chosen: a request at that very moment finds it awake."""
        return idle_since_s + self.pool.machine.sleep_after_s

    def next_s(self) -> float:
        """The next moment at which anything happens here without a new request."""
        if self.until_s is not None:
            return self.until_s
        return min((request.reach_s for request in self.on_the_way), default=math.inf)

    def end(self, now_s: float) -> list[Request]:
        """A step ends (or a wake, in which nobody computes): those that are served leave."""
        self.until_s = None
        for request in self.admitted:
            request.prefilled += self.chunks.get(request.number, 0)
            if not request.decoding and request.prefilled == request.context_tokens:
                self.kept.keep(request.asked.blocks)
            if request.decoding or request.prefilled == request.context_tokens:
                request.decoding = True
                request.produced += 1
                if request.first_token_s is None:
                    request.first_token_s = now_s
        done = [r for r in self.admitted if r.produced == r.asked.output_tokens]
        self.admitted = [r for r in self.admitted if r not in done]
        self.chunks = {}
        if self.pool.role == "prefill":
            self.moving = [r for r in self.admitted if r.decoding]
            self.admitted = [r for r in self.admitted if not r.decoding]
        for request in done:
            request.finish_s = request.left_s = now_s
            request.status = "served"
        return done

    def begin(self, now_s: float) -> list[Request]:
        """What comes next at a boundary, or while idle; those cancelled now."""
        for request in [r for r in self.on_the_way if r.reach_s <= now_s]:
            self.on_the_way.remove(request)
            self.enqueue(request)
        if self.idle_since_s is not None:
            if not self.queue:
                return []
            slept = self.rest(now_s)
            self.idle_since_s = None
            if slept:
                self.wake(now_s)
                return []
        preempted = self.preempt()
        cancelled = self.give_chunks(now_s, admit=not preempted)
        if self.admitted:
            self.step(now_s)
        else:
            self.idle_since_s = now_s
        return cancelled

    def enqueue(self, request: Request, *, at_front: bool = False) -> None:
        """Put a request at the end, or the front, of those with its priority.

        Chosen: the front of the queue, for a preempted request, is that of its own priority.
        """
        ahead = [
            other.asked.priority < request.asked.priority
            or (not at_front and other.asked.priority == request.asked.priority)
            for other in self.queue
        ]
        self.queue.insert(sum(ahead), request)

    def move(self, now_s: float) -> list[Request]:
        """Send the KV memory of those with their first token; they arrive at their moments."""
        moving, self.moving = self.moving, []
        for request in moving:
            assert self.transfer is not None
            tokens = request.context_tokens
            request.moved, request.decoding, request.prefilled = True, False, 0
            request.prefill_machine, request.machine = request.machine, None
            time_s = self.transfer.fixed_s + tokens * self.transfer.s_per_token
            request.arrival_s = now_s + time_s
            joules = tokens * self.transfer.joules_per_token
            self.draw("transfer", joules, now_s, request.arrival_s)
        return moving

    def whole(self, request: Request) -> int:
        """Prompt and answer, as far as this machine is to give it."""
        first = request.asked.input_tokens + 1
        return first if self.pool.role == "prefill" else request.total_tokens

    def may_serve(self, request: Request) -> bool:
        """Whether it is on, of the right role, and can ever hold the request."""
        right = (self.pool.role == "decode") == request.moved
        return self.power == "on" and right and self.pool.machine.holds(self.whole(request))

    def holds(self, request: Request) -> int:
        """KV tokens that a request takes, in every state that can hold any."""
        whole = self.pool.machine.kv_rule == "whole"
        tokens = self.whole(request) if whole else request.context_tokens
        return tokens + self.pool.machine.kv_request_tokens

    def held(self) -> int:
        """KV tokens that all admitted requests take in the coming step."""
        return sum(self.holds(request) for request in self.admitted)

    def preempt(self) -> bool:
        """Make room for the tokens of the coming step; whether that took any."""
        preempted = False
        while self.held() > self.pool.machine.kv_capacity_tokens:
            victim = self.admitted.pop()
            victim.decoding, victim.prefilled = False, 0
            victim.preemptions += 1
            self.enqueue(victim, at_front=True)
            preempted = True
        return preempted

    def give_chunks(self, now_s: float, *, admit: bool) -> list[Request]:
        """Share out the prompt tokens of the coming step; those cancelled.

        Chosen: patience is looked at for a head that could be admitted but for the memory: with a
        place and tokens left, before the memory is, and at no boundary that preempted.
        """
        machine = self.pool.machine
        budget = machine.max_step_tokens - sum(r.decoding for r in self.admitted)
        for request in self.admitted:
            if not request.decoding:  # the one prompt that is partly done
                budget -= self.give_chunk(request, budget)
        cancelled: list[Request] = []
        while admit and budget and len(self.admitted) < machine.max_batch and self.queue:
            head = self.queue[0]
            if not head.was_admitted and now_s - head.reach_s > head.asked.patience_s:
                head.left_s = now_s
                cancelled.append(self.queue.pop(0))
            elif self.held() + self.holds(head) > machine.kv_capacity_tokens:
                break
            else:
                if not head.moved:
                    head.prefilled = self.kept.reuse(
                        head.asked.blocks, head.asked.input_tokens, head.produced
                    )
                    if not head.preemptions:
                        head.hit_tokens = head.prefilled
                if not head.was_admitted:
                    head.wait_s = now_s - head.reach_s
                head.was_admitted = True
                self.admitted.append(self.queue.pop(0))
                if head.moved:
                    head.moved, head.decoding = False, True
                    budget -= 1
                else:
                    budget -= self.give_chunk(head, budget)
        return cancelled

    def give_chunk(self, request: Request, budget: int) -> int:
        """Give a prompt what it needs of the budget."""
        chunk = min(budget, request.context_tokens - request.prefilled)
        self.chunks[request.number] = chunk
        return chunk

    def step(self, now_s: float) -> None:
        """Compute the step that begins now."""
        model, cap_watts = self.pool.machine.step, self.pool.machine.cap_watts
        if self.shares_watts is not None:
            cap_watts = min(cap_watts, self.shares_watts.at(now_s))
        decoding = [r for r in self.admitted if r.decoding]
        batch, context = len(decoding), sum(r.context_tokens for r in decoding)
        prompt = attended = 0
        for request in self.admitted:
            chunk = self.chunks.get(request.number, 0)
            prompt += chunk
            attended += chunk * request.prefilled + chunk * (chunk + 1) // 2
        size = (batch, context, prompt, attended)
        lanes = [model.memory.cost(*size), model.arithmetic.cost(*size)]
        time_s = max(*lanes, model.energy.cost(*size) / (cap_watts - model.busy_watts))
        end_s = now_s + time_s
        nothing, decode = model.energy.cost(0, 0, 0, 0), model.energy.cost(batch, context, 0, 0)
        self.draw("overhead", nothing + model.busy_watts * time_s, now_s, end_s)
        self.draw("decode", decode - nothing, now_s, end_s)
        self.draw("prefill", model.energy.cost(*size) - decode, now_s, end_s)
        joules = model.energy.cost(*size) + model.busy_watts * time_s
        taken = Step(
            machine=self.number,
            start_s=now_s,
            end_s=end_s,
            size=size,
            cap_watts=cap_watts,
            joules=joules,
        )
        self.steps.append(taken)
        self.busy_s += time_s
        self.until_s = end_s

    def has_any(self) -> bool:
        """Whether any request was sent here and is not done."""
        return bool(self.on_the_way or self.queue or self.admitted)

    def go_down(self, now_s: float) -> None:
        """It is sent no more; off from now on if it has nothing left."""
        if not self.has_any():
            self.rest(now_s)
            self.idle_since_s = now_s
        self.power = "down"

    def provision(self, now_s: float, ready_s: float) -> None:
        """It was off until now."""
        self.rest(now_s)
        self.power, self.idle_since_s, self.ready_s = "coming", now_s, ready_s

    def provisioned(self, now_s: float) -> None:
        """What that took, all of it or, at the end of all, the part until now."""
        rule, since_s = self.pool.autoscale, self.idle_since_s
        assert rule is not None
        assert since_s is not None
        done = 1.0 if now_s >= self.ready_s else (now_s - since_s) / rule.provision_s
        self.draw("wake", done * rule.provision_joules, since_s, now_s)
        self.idle_since_s = now_s

    def rest(self, now_s: float) -> bool:
        """Book the time idle, asleep or off until now; whether it slept."""
        if self.idle_since_s is None:
            return False
        if self.power == "coming":
            self.provisioned(now_s)
            return False
        if self.power == "down" and not self.has_any():
            assert self.pool.autoscale is not None
            joules = self.pool.autoscale.off_watts * (now_s - self.idle_since_s)
            self.draw("off", joules, self.idle_since_s, now_s)
            return False
        asleep_s = self.sleeps_at_s(self.idle_since_s)
        awake_until_s = min(now_s, asleep_s)
        idle_joules = self.pool.machine.idle_watts * (awake_until_s - self.idle_since_s)
        sleep_joules = self.pool.machine.sleep_watts * (now_s - awake_until_s)
        self.draw("idle", idle_joules, self.idle_since_s, awake_until_s)
        self.draw("sleep", sleep_joules, awake_until_s, now_s)
        return now_s > asleep_s

    def wake(self, now_s: float) -> None:
        """Begin to wake. Chosen: its energy flows evenly too."""
        self.until_s = now_s + self.pool.machine.wake_s
        self.draw("wake", self.pool.machine.wake_joules, now_s, self.until_s)

    def draw(self, part: Part, joules: float, start_s: float, end_s: float) -> None:
        """Book energy that flows evenly between two moments."""
        self.joules[part] += joules
        self.bill.add(joules, start_s, end_s)
