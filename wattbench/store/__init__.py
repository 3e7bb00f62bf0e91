"""Where raw facts lie: a database written while a run goes on. The only user of SQLAlchemy."""

from sqlalchemy.engine import URL

from wattbench.store.calibrations import (
    StoredCalibration,
    list_calibrations,
    load_calibration,
    save_calibration,
)
from wattbench.store.database import check_place, connect, database_url, show_url
from wattbench.store.imports import (
    ImportedLoad,
    KeptDocument,
    add_imported,
    document_content,
    has_run,
    join_imported,
)
from wattbench.store.reader import RunSummary, load_run, select_runs
from wattbench.store.simulations import (
    StoredSimulation,
    list_simulations,
    load_simulation,
    save_simulation,
)
from wattbench.store.writer import StoreWriter, add_traces, remove_domain

__all__ = [
    "URL",
    "ImportedLoad",
    "KeptDocument",
    "RunSummary",
    "StoreWriter",
    "StoredCalibration",
    "StoredSimulation",
    "add_imported",
    "add_traces",
    "check_place",
    "connect",
    "database_url",
    "document_content",
    "has_run",
    "join_imported",
    "list_calibrations",
    "list_simulations",
    "load_calibration",
    "load_run",
    "load_simulation",
    "remove_domain",
    "save_calibration",
    "save_simulation",
    "select_runs",
    "show_url",
]
