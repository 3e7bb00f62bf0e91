"""Whose joules: the energy of a window shared among the requests that were under way.

    G(t)  = ∫ P(τ) / n(τ) dτ  over the times with n(τ) > 0 requests under way
    E_r   = G(end of r) − G(start of r)          both cut to the window
    Σ E_r + E_idle = E_window                    E_idle: the times with nobody under way

An engine that batches works on all requests at once, so each instant's power is split equally.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import FloatArray
from wattbench.energy.integrate import CumulativeEnergy


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Energy of a window by request.

    Attributes:
        request_joules: Shape (n,), energy of each request inside the window [J].
        request_fraction: Shape (n,), share of each request's time that lies inside the window.
        idle_joules: Energy while no request was under way [J].
    """

    request_joules: FloatArray
    request_fraction: FloatArray
    idle_joules: float


def attribute(
    energy: CumulativeEnergy,
    sent_s: FloatArray,
    end_s: FloatArray,
    window_start_s: float,
    window_end_s: float,
) -> Attribution:
    """Share the energy of a window among requests, conserving it.

    Args:
        energy: Cumulative energy that covers the window.
        sent_s: Shape (n,), start of each request [s, run clock].
        end_s: Shape (n,), end of each request [s, run clock].
        window_start_s: Window start [s, run clock].
        window_end_s: Window end [s, run clock].
    """
    start = np.clip(sent_s, window_start_s, window_end_s)
    end = np.clip(end_s, window_start_s, window_end_s)
    edges = np.unique(np.concatenate([[window_start_s, window_end_s], start, end]))
    slice_joules = np.diff(energy.at_joules(edges))
    begun = np.searchsorted(np.sort(start), edges[:-1], side="right")
    ended = np.searchsorted(np.sort(end), edges[:-1], side="right")
    under_way = begun - ended
    share = np.where(under_way > 0, slice_joules / np.maximum(under_way, 1), 0.0)
    per_request = np.concatenate([[0.0], np.cumsum(share)])
    held_s = np.maximum(end_s - sent_s, 1e-12)
    return Attribution(
        request_joules=per_request[np.searchsorted(edges, end)]
        - per_request[np.searchsorted(edges, start)],
        request_fraction=(end - start) / held_s,
        idle_joules=float(slice_joules[under_way <= 0].sum()),
    )
