"""Sweeps of machines and models that follow a law, for tests of the Token Production Function."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from wattbench.tpf.table import Table, table_of

BY = ("machine", "model", "task")
MACHINES = {"old": 1.0, "new": 0.7, "third": 1.3}
SIZES = {"m2": 2.0, "m7": 7.0, "m8": 8.0, "m13": 13.0, "m34": 34.0, "m70": 70.0}
USERS = (1, 4, 16, 32, 64, 128, 256)


def joules(machine: float, size: float, users: float) -> float:
    """A + b/B, each growing with the model, on a machine that takes so much of it."""
    return float(machine * size**0.9 * (0.006 + 0.5 / users))


def rows(noise: float = 0.02, seed: int = 3) -> list[dict[str, str | float]]:
    """A row for each machine, model and number of users."""
    rng = np.random.default_rng(seed)
    found: list[dict[str, str | float]] = []
    for machine, share in MACHINES.items():
        for model, size in SIZES.items():
            own = float(np.exp(rng.normal(0, 0.05)))
            for users in USERS:
                energy = joules(share, size, users) * own * float(np.exp(rng.normal(0, noise)))
                rate = 400.0 * users**0.7 / size**0.5 * float(np.exp(rng.normal(0, noise)))
                found.append(
                    {
                        "machine": machine,
                        "model": model,
                        "task": "chat",
                        "concurrency": float(users),
                        "energy_per_output_token_joules": energy,
                        "output_tokens_per_s": rate,
                        "mean_power_watts": energy * rate,
                        "active_params_billions": size,
                        "machine_count": 1.0,
                    }
                )
    return found


def table(noise: float = 0.02, seed: int = 3) -> Table:
    """All of the rows."""
    return table_of(rows(noise, seed), BY)


def write(path: Path, lines: list[dict[str, str | float]]) -> Path:
    """A CSV file of some rows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path
