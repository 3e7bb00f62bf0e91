"""Calibrations: fits of one meter to others, kept beside the runs that they were made from."""

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
class StoredCalibration:
    """A fit as it is kept.

    Attributes:
        calibration_id: Unique name.
        created_unix_s: When it was made [Unix s].
        expires_unix_s: From when on it is not to be trusted [Unix s].
        fit: The fit, as JSON.
    """

    calibration_id: str
    created_unix_s: float
    expires_unix_s: float
    fit: Mapping[str, Json]


def save_calibration(engine: sa.Engine, calibration: StoredCalibration) -> None:
    """Keep a calibration.

    Raises:
        StoreError: If the database cannot be written.
    """
    row = {
        "calibration_id": calibration.calibration_id,
        "created_unix_s": calibration.created_unix_s,
        "expires_unix_s": calibration.expires_unix_s,
        "fit": dict(calibration.fit),
    }
    try:
        with engine.begin() as connection:
            connection.execute(sa.insert(schema.calibrations), row)
    except sa.exc.SQLAlchemyError as error:
        raise store_error(error, engine) from error


def list_calibrations(engine: sa.Engine) -> list[StoredCalibration]:
    """All calibrations, oldest first.

    Raises:
        StoreError: If the database cannot be read.
    """
    table = schema.calibrations
    query = sa.select(table).order_by(table.c.created_unix_s, table.c.calibration_id)
    with reading(engine) as connection:
        return [_calibration(row) for row in connection.execute(query).mappings()]


def load_calibration(engine: sa.Engine, calibration_id: str) -> StoredCalibration:
    """One calibration.

    Args:
        engine: An open database.
        calibration_id: Its name, or ``latest``.

    Raises:
        UsageError: If there is none of that name.
        StoreError: If the database cannot be read.
    """
    known = list_calibrations(engine)
    if calibration_id == "latest" and known:
        return known[-1]
    for calibration in known:
        if calibration.calibration_id == calibration_id:
            return calibration
    raise UsageError(
        f"there is no calibration {calibration_id!r} in this database; `wattbench list "
        f"calibrations` shows what there is, `wattbench calibrate` makes one"
    )


def _calibration(row: RowMapping) -> StoredCalibration:
    return StoredCalibration(
        calibration_id=row["calibration_id"],
        created_unix_s=row["created_unix_s"],
        expires_unix_s=row["expires_unix_s"],
        fit=row["fit"],
    )
