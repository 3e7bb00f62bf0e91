"""Where raw facts lie: a database written while a run goes on. The only user of SQLAlchemy."""

from sqlalchemy.engine import URL

from wattbench.store.database import check_place, connect, database_url, show_url
from wattbench.store.reader import RunSummary, load_run, select_runs
from wattbench.store.writer import StoreWriter

__all__ = [
    "URL",
    "RunSummary",
    "StoreWriter",
    "check_place",
    "connect",
    "database_url",
    "load_run",
    "select_runs",
    "show_url",
]
