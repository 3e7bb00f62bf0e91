"""The truth of an emulated machine: exact energy, by phase and by request.

Power is constant within a segment, so every energy between two instants is exact. The energy of
a step above idle is prefill or decode: decode gets what the step would have cost without its
prefill, by time; prefill the rest. Decode energy is split equally over the requests that
decoded in the step, prefill energy by prompt tokens. So

    total = idle power · time + prefill + decode,      Σ requests = prefill + decode

Nothing here imports the code that measures.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_COLUMNS = ("total", "prefill", "decode", "decode_share")


class Timeline:
    """Cumulative energies of piecewise constant power; idle wherever nothing was added.

    Args:
        start_s: When the machine was switched on [s, loop clock].
        idle_watts: Its power while it does nothing [W].
    """

    def __init__(self, start_s: float, idle_watts: float) -> None:
        self.idle_watts = idle_watts
        self._edge_s = array("d", [start_s])
        self._sums = {name: array("d", [0.0]) for name in _COLUMNS}

    @property
    def end_s(self) -> float:
        """End of the last segment [s, loop clock]; idle from there on."""
        return self._edge_s[-1]

    def add(
        self,
        start_s: float,
        end_s: float,
        power_watts: float,
        prefill_fraction: float = 0.0,
        decoding_count: int = 0,
    ) -> None:
        """Append a busy segment.

        Args:
            start_s: Its start, not before the last segment's end [s].
            end_s: Its end [s].
            power_watts: Its power [W].
            prefill_fraction: Share of its energy above idle that is prefill.
            decoding_count: Requests that share the rest.
        """
        if start_s > self._edge_s[-1]:
            gap_s = start_s - self._edge_s[-1]
            self._append(start_s, self.idle_watts * gap_s, 0.0, 0.0, 0.0)
        active = (power_watts - self.idle_watts) * (end_s - start_s)
        prefill = active * (prefill_fraction if decoding_count else 1.0)
        decode = active - prefill
        share = decode / decoding_count if decoding_count else 0.0
        self._append(end_s, power_watts * (end_s - start_s), prefill, decode, share)

    def _append(self, edge_s: float, *joules: float) -> None:
        self._edge_s.append(edge_s)
        for column, value in zip(self._sums.values(), joules, strict=True):
            column.append(column[-1] + value)

    def energy_joules(self, time_s: FloatArray) -> FloatArray:
        """Energy from the start to each instant [J], shape (n,), for sorted ``time_s`` [s].

        Before the start and after the last segment the machine idles.
        """
        outside_s = np.maximum(0.0, time_s - self.end_s) + np.minimum(0.0, time_s - self._edge_s[0])
        return np.asarray(self._between("total", time_s) + self.idle_watts * outside_s)

    def phase_joules(self, phase: str, start_s: float, end_s: float) -> float:
        """Energy above idle of ``prefill`` or ``decode`` between two instants [J]."""
        low, high = self._between(phase, np.array([start_s, end_s]))
        return float(high - low)

    def decode_share_joules(self, start_s: float, end_s: float) -> float:
        """Energy of one request that decodes from ``start_s`` to ``end_s`` [J]."""
        return self.phase_joules("decode_share", start_s, end_s)

    def _between(self, column: str, time_s: FloatArray) -> FloatArray:
        if not len(time_s):
            return np.empty(0)
        # Only the part of the history that is asked for is copied.
        first = max(0, int(np.searchsorted(self._edge_s, time_s[0])) - 1)
        edges = np.array(self._edge_s[first:])
        return np.asarray(np.interp(time_s, edges, np.array(self._sums[column][first:])))

    def steps(self) -> tuple[FloatArray, FloatArray]:
        """Edges [s], shape (n + 1,), and the constant power between them [W], shape (n,)."""
        edge_s, energy = np.array(self._edge_s), np.array(self._sums["total"])
        keep = np.concatenate([[True], np.diff(edge_s) > 0])
        edge_s, energy = edge_s[keep], energy[keep]
        return edge_s, np.diff(energy) / np.diff(edge_s)
