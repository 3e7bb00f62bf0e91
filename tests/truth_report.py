"""What ``make bench-truth`` prints without records: one table, from machines of known energy.

``RUNS`` in process (1,000 unless told otherwise: a quarter of an hour on two cores) and ``WIRE``
over the wire per fault (0: none; 20 take an hour).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from fault_runs import FAULT_CODES, codes_of_run
from truth_periodic import periodic_coverage
from truth_sections import Coverage, absolute_coverage, accuracy, relative_coverage
from wire import emulated, run_point, true_joules

from wattbench.emulator import FAULTS

RUNS = int(os.environ.get("RUNS", "1000"))
WIRE = int(os.environ.get("WIRE", "0"))
AT_ONCE = 4
"""Real-time runs side by side; they mostly wait."""


def print_report() -> None:
    """Print the table, a line as soon as it is known."""
    line(f"{'check':44s} {'asked':>18s} {'found':>30s}")
    in_process()
    faults_in_process()
    if WIRE:
        over_the_wire()


def line(text: str) -> None:
    """One line of the table."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def row(check: str, asked: str, found: str) -> None:
    """One row of the table."""
    line(f"{check:44s} {asked:>18s} {found:>30s}")


def _blocks(count: int, blocks: int = 8) -> list[range]:
    edges = np.linspace(0, count, blocks + 1).astype(int).tolist()
    return [range(first, last) for first, last in pairwise(edges) if last > first]


def _pooled(parts: Sequence[Coverage], sizes: Sequence[int]) -> Coverage:
    return Coverage(
        covered=float(np.average([part.covered for part in parts], weights=sizes)),
        width_ratio=float(np.median([part.width_ratio for part in parts])),
    )


def in_process() -> None:
    """Accuracy and coverage against the emulated machine's truth."""
    blocks = _blocks(RUNS)
    sizes = [len(block) for block in blocks]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        errors = np.concatenate(list(pool.map(accuracy, blocks)))
        found = f"{100 * np.median(errors):.4f} %, {100 * np.quantile(errors, 0.99):.3f} %"
        row(f"J/token error, {RUNS} runs: median, p99", "0.05 %, 0.3 %", found)
        checks: tuple[tuple[str, str, Callable[[range], Coverage]], ...] = (
            ("absolute interval", "93-97 %, 1.3 x", absolute_coverage),
            ("ratio on one device", "93-97 %, 1.3 x", relative_coverage),
            ("periodic load, part-time sensor", "95 %, alias 100 %", periodic_coverage),
        )
        for name, asked, check in checks:
            both = _pooled(list(pool.map(check, blocks)), sizes)
            second = f"{100 * both.width_ratio:.0f} %" if "alias" in asked else ""
            width = second or f"{both.width_ratio:.2f} x an oracle's"
            row(f"{name}: covered, then", asked, f"{100 * both.covered:.1f} %, {width}")


def _codes(job: tuple[str | None, int]) -> set[str]:
    return codes_of_run(*job)


def faults_in_process() -> None:
    """Each fault's code in a tenth as many runs, and sound runs that carry one."""
    count = max(10, RUNS // 10)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for kind, fault in FAULTS.items():
            found = pool.map(_codes, [(kind, seed) for seed in range(count)])
            named = sum(fault.code in codes for codes in found)
            row(f"fault {kind}: named {fault.code}", f"{0.99 * count:.0f} of {count}", str(named))
        sound = pool.map(_codes, [(None, seed) for seed in range(count)])
        wrong = sum(bool(codes & FAULT_CODES) for codes in sound)
        row("sound sensors with a fault's code", f"{0.01 * count:.0f} of {count}", str(wrong))


def wire_point(job: tuple[int, Sequence[str]]) -> tuple[dict[str, Any], float]:
    """One run in real time against `wattbench emulate`: its point, and the true energy [J]."""
    seed, arguments = job
    with (
        tempfile.TemporaryDirectory() as folder,
        emulated("h100-sxm", "--seed", str(seed), *arguments) as (url, _),
    ):
        meter, more = f"prometheus,url={url}/metrics", ("--seed", str(seed))
        point = run_point(Path(folder), url, meter, duration_s=10.3, more=more)
        return point, true_joules(url, point)


def _wire_points(jobs: Iterable[tuple[int, Sequence[str]]]) -> list[tuple[dict[str, Any], float]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(wire_point, jobs))


def over_the_wire() -> None:
    """The same in real time: unknown scale and offset, then every fault."""
    rng = np.random.default_rng(11)
    count = max(10, 5 * WIRE // 2)
    jobs = []
    for seed in range(count):
        gain, offset_watts = 1 / (1 + rng.uniform(-0.05, 0.05)), rng.uniform(-5, 5)
        jobs.append((seed, ("--sensor", f"gain={gain:.5f},offset_watts={offset_watts:.3f}")))
    inside = 0
    for point, truth in _wire_points(jobs):
        gross = point["energy"]["headline"]["gross_joules"]
        inside += gross["low"] <= truth <= gross["high"]
    row("over the wire: intervals that cover", f"{0.88 * count:.0f} of {count}", str(inside))
    for kind, fault in FAULTS.items():
        found = _wire_points((1000 + seed, ("--fault", kind)) for seed in range(WIRE))
        named = sum(
            fault.code in {finding["code"] for finding in point["findings"]} for point, _ in found
        )
        row(f"over the wire, fault {kind}", f"{0.95 * WIRE:.0f} of {WIRE}", str(named))
