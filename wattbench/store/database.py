"""Opening a database: by path or URL, created or migrated when needed, refused when newer."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from wattbench.core.errors import StoreError, UsageError

ENVIRONMENT_VARIABLE = "WATTBENCH_DB"
_MIGRATIONS = Path(__file__).parent / "migrations"
_VERSIONS = _MIGRATIONS / "versions"


def default_url() -> str:
    """The database used when nobody names one: ``WATTBENCH_DB``, else in the user's data folder."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return named
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return f"sqlite:///{Path(base) / 'wattbench' / 'wattbench.sqlite'}"


def database_url(text: str | None) -> URL:
    """A URL from what the user wrote: a database URL, or the path of an SQLite file.

    Raises:
        UsageError: If it is neither.
    """
    text = text or default_url()
    if "://" not in text:
        text = f"sqlite:///{text}"
    try:
        url = make_url(text)
    except sa.exc.ArgumentError as error:
        raise UsageError(f"--db {text!r} is neither a database URL nor a path: {error}") from error
    if url.get_backend_name() != "sqlite":
        raise UsageError(
            f"--db {url.render_as_string(hide_password=True)}: only SQLite is supported so far; "
            f"give a path or sqlite:///PATH"
        )
    return url


def show_url(url: URL) -> str:
    """What to print for a database: the path of an SQLite file, else the URL without password."""
    return url.database or url.render_as_string(hide_password=True)


def connect(url: URL, *, create: bool) -> sa.Engine:
    """Open a database at the current schema.

    Args:
        url: Which database.
        create: Create it (and its folder) if there is none; else that is an error.

    Raises:
        StoreError: If there is none, or it is unreadable, not writable, not ours, or newer.
    """
    path = Path(url.database or "")
    if create:
        _make_folder(path)
    elif not path.is_file():
        raise StoreError(
            f"there is no database at {path}; record runs with `wattbench run … --db {path}`, or "
            f"name another with --db or {ENVIRONMENT_VARIABLE}"
        )
    try:
        current, head = _schema_of(path), _known_schemas()[0]
        engine = sa.create_engine(url, connect_args={"timeout": 30.0})
        sa.event.listen(engine, "connect", _set_pragmas)
        if current != head:
            with engine.begin() as connection:
                _upgrade(connection)
    except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
        raise StoreError(_explain(path, error)) from error
    return engine


def check_place(url: URL) -> None:
    """Refuse, before any work is done, a database that could not be written later.

    Raises:
        StoreError: If it exists and is not usable, or its folder cannot be made or written.
    """
    path = Path(url.database or "")
    if path.exists():
        connect(url, create=True).dispose()
        return
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(
            f"the database {path} cannot be created: {folder} is not a folder that can be written; "
            f"name another place with --db"
        )


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the folder {path.parent} for the database cannot be made: {error.strerror}; name "
            f"another place with --db"
        ) from error


def _set_pragmas(connection: Any, _record: Any) -> None:
    """WAL lets readers in while a run writes; FULL makes an acknowledged record survive."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _schema_of(path: Path) -> str | None:
    """Schema of a database, read without changing a byte of it; None if it is new or empty.

    Raises:
        StoreError: If it is somebody else's, or of a newer wattbench.
    """
    if not path.is_file():
        return None
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        tables = [name for (name,) in connection.execute(query) if not name.startswith("sqlite_")]
        if not tables:
            return None
        if "alembic_version" not in tables or "runs" not in tables:
            raise StoreError(
                f"{path} is a database of something else (tables {', '.join(tables[:4])}); name "
                f"another file with --db"
            )
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    known = _known_schemas()
    if row is not None and row[0] not in known:
        raise StoreError(
            f"{path} was written by a newer wattbench (schema {row[0]}, this one knows up to "
            f"{known[0]}); upgrade wattbench to read it"
        )
    return None if row is None else str(row[0])


def _known_schemas() -> list[str]:
    """Names of all schemas there ever were, the newest first."""
    return sorted((path.name[:4] for path in _VERSIONS.glob("[0-9]*.py")), reverse=True)


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command

    command.upgrade(_alembic_config(connection), "head")


def _alembic_config(connection: sa.Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _explain(path: Path, error: Exception) -> str:
    cause = str(getattr(error, "orig", None) or error)
    if "not a database" in cause or "malformed" in cause:
        return f"{path} is not a readable SQLite database ({cause}); name another file with --db"
    if "unable to open" in cause or "readonly" in cause:
        return (
            f"the database {path} cannot be opened for writing ({cause}); check the permissions of "
            f"the file and its folder, or name another place with --db"
        )
    if "locked" in cause:
        return f"the database {path} is locked by another process ({cause}); try again later"
    return f"the database {path} cannot be used: {cause}"
