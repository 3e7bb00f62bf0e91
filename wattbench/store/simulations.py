"""Simulations: scenario and result, kept beside the runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from wattbench.core.errors import UsageError
from wattbench.core.run import Json
from wattbench.store import schema
from wattbench.store.reader import reading
from wattbench.store.writer import store_error


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSimulation:
    """A simulation as it is kept.

    Attributes:
        simulation_id: Unique name.
        created_unix_s: When it was made [Unix s].
        scenario: Text of the scenario's file.
        result: All that was said of it, as JSON.
        versions: Of what computed it.
        seed: The first seed.
    """

    simulation_id: str
    created_unix_s: float
    scenario: str
    result: Mapping[str, Json]
    versions: Mapping[str, Json]
    seed: int


def save_simulation(engine: sa.Engine, simulation: StoredSimulation) -> None:
    """Keep a simulation.

    Raises:
        StoreError: If the database cannot be written.
    """
    row = {
        "simulation_id": simulation.simulation_id,
        "created_unix_s": simulation.created_unix_s,
        "scenario": simulation.scenario,
        "result": dict(simulation.result),
        "versions": dict(simulation.versions),
        "seed": simulation.seed,
    }
    try:
        with engine.begin() as connection:
            connection.execute(sa.insert(schema.simulations), row)
    except sa.exc.SQLAlchemyError as error:
        raise store_error(error, engine) from error


def list_simulations(engine: sa.Engine) -> list[StoredSimulation]:
    """All simulations, oldest first.

    Raises:
        StoreError: If the database cannot be read.
    """
    table = schema.simulations
    query = sa.select(table).order_by(table.c.created_unix_s, table.c.simulation_id)
    with reading(engine) as connection:
        return [_simulation(row) for row in connection.execute(query).mappings()]


def load_simulation(engine: sa.Engine, simulation_id: str) -> StoredSimulation:
    """One simulation.

    Args:
        engine: An open database.
        simulation_id: Its name, or ``latest``.

    Raises:
        UsageError: If there is none of that name.
        StoreError: If the database cannot be read.
    """
    known = list_simulations(engine)
    if simulation_id == "latest" and known:
        return known[-1]
    for simulation in known:
        if simulation.simulation_id == simulation_id:
            return simulation
    raise UsageError(
        f"there is no simulation {simulation_id!r} in this database; `wattbench list simulations` "
        f"shows what there is, `wattbench simulate` makes one"
    )


def _simulation(row: RowMapping) -> StoredSimulation:
    return StoredSimulation(
        simulation_id=row["simulation_id"],
        created_unix_s=row["created_unix_s"],
        scenario=row["scenario"],
        result=row["result"],
        versions=row["versions"],
        seed=row["seed"],
    )
