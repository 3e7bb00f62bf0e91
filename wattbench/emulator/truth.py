"""What really happened on an emulated machine between two instants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wattbench.emulator.device import EmulatedMachine, Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTruth:
    """One request inside a window.

    Attributes:
        number: Number of the request since the machine started.
        energy_joules: Its energy above idle inside the window [J].
        first_token_s: When its first token was emitted [s, loop clock], None if not yet.
        last_token_s: When its last token was emitted [s, loop clock], None if not yet.
        input_tokens: Prompt length [tokens].
        output_tokens: Tokens emitted so far [tokens].
    """

    number: int
    energy_joules: float
    first_token_s: float | None
    last_token_s: float | None
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowTruth:
    """Exact energies and counts of a window.

    Attributes:
        energy_joules: All of it [J].
        idle_energy_joules: Idle power times the window [J].
        prefill_energy_joules: Above idle, reading prompts [J].
        decode_energy_joules: Above idle, writing answers [J].
        prefill_tokens: Prompt tokens of requests whose first token was emitted in the window.
        output_tokens: Tokens emitted in the window, its start included.
        requests: Every request that was on the machine in the window.
    """

    energy_joules: float
    idle_energy_joules: float
    prefill_energy_joules: float
    decode_energy_joules: float
    prefill_tokens: int
    output_tokens: int
    requests: tuple[RequestTruth, ...]


def truth(machine: EmulatedMachine, start_s: float, end_s: float) -> WindowTruth:
    """The truth about a window [s, loop clock]."""
    timeline = machine.timeline
    low, high = timeline.energy_joules(np.array([start_s, end_s]))
    emitted_s = np.array(machine.emission_s)
    present = [s for s in machine.streams if _present(s, start_s, end_s)]
    return WindowTruth(
        energy_joules=float(high - low),
        idle_energy_joules=timeline.idle_watts * (end_s - start_s),
        prefill_energy_joules=timeline.phase_joules("prefill", start_s, end_s),
        decode_energy_joules=timeline.phase_joules("decode", start_s, end_s),
        prefill_tokens=sum(
            s.input_tokens
            for s in present
            if s.first_token_s is not None and start_s <= s.first_token_s < end_s
        ),
        output_tokens=int(((emitted_s >= start_s) & (emitted_s < end_s)).sum()),
        requests=tuple(_request(machine, stream, start_s, end_s) for stream in present),
    )


def _present(stream: Stream, start_s: float, end_s: float) -> bool:
    return stream.arrived_s < end_s and (stream.last_token_s or np.inf) >= start_s


def _request(
    machine: EmulatedMachine, stream: Stream, start_s: float, end_s: float
) -> RequestTruth:
    prefill = sum(
        chunk.energy_joules
        * max(0.0, min(end_s, chunk.end_s) - max(start_s, chunk.start_s))
        / (chunk.end_s - chunk.start_s)
        for chunk in stream.prefill
    )
    decode = 0.0
    if stream.first_token_s is not None:
        from_s = max(start_s, stream.first_token_s)
        until_s = min(end_s, stream.last_token_s or end_s)
        if until_s > from_s:
            decode = machine.timeline.decode_share_joules(from_s, until_s)
    return RequestTruth(
        number=stream.number,
        energy_joules=prefill + decode,
        first_token_s=stream.first_token_s,
        last_token_s=stream.last_token_s,
        input_tokens=stream.input_tokens,
        output_tokens=stream.emitted_tokens,
    )
