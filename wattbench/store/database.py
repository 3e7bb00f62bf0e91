"""Opening a database: by path or URL, created or migrated when needed, refused when newer."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from wattbench.core.errors import StoreError, UsageError

ENVIRONMENT_VARIABLE = "WATTBENCH_DB"
MAX_PATH_BYTES = 500
"""SQLite takes 512 with the ending of a journal."""
_MIGRATIONS = Path(__file__).parent / "migrations"
_VERSIONS = _MIGRATIONS / "versions"
_Access = Literal["mode=rwc", "mode=rw", "mode=ro", "immutable=1"]
"""How SQLite opens a file: create and write, write, read, read what nobody can change."""


def database_url(text: str | None) -> URL:
    """A URL from what the user wrote: a database URL, or the path of an SQLite file.

    A path is taken literally, whatever its characters mean in a URL. Without a text it is
    ``WATTBENCH_DB``, else a file in the user's data folder.

    Raises:
        UsageError: If it is neither.
    """
    text = os.environ.get(ENVIRONMENT_VARIABLE) or None if text is None else text
    if text is None:
        base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        path = str(Path(base) / "wattbench" / "wattbench.sqlite")
    else:
        path = _path_in(text) if "://" in text else text
    if path in ("", ":memory:"):
        raise UsageError(f"--db {text!r} would forget everything at the end; name a file")
    length = len(os.fsencode(os.path.abspath(path)))
    if length > MAX_PATH_BYTES:
        raise UsageError(
            f"--db {path[:40]}…: the path is {length} bytes long, SQLite takes {MAX_PATH_BYTES}; "
            f"name a file with a shorter path"
        )
    return URL.create("sqlite", database=path)


def _path_in(text: str) -> str:
    """The path in an SQLite URL."""
    shown = re.sub(r"//[^/]*@", "//…@", text)
    try:
        url = make_url(text)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise UsageError(f"--db {shown!r} is neither a database URL nor a path") from error
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise UsageError(
            f"--db {shown}: only SQLite is supported so far; give a path or sqlite:///PATH"
        )
    if url.host:
        raise UsageError(f"--db {shown}: an SQLite URL has three slashes, as in sqlite:///PATH")
    if url.query and url.database:
        raise UsageError(
            f"--db {shown}: options after ? are not supported; if the question mark is part of the "
            f"name, give it as a plain path"
        )
    return url.database or ""


def show_url(url: URL) -> str:
    """What to print for a database: the path of its file."""
    return url.database or ""


def connect(url: URL, *, create: bool) -> sa.Engine:
    """Open a database at the current schema.

    Args:
        url: Which database.
        create: For writing, created (with its folder) if there is none. Else for reading, which
            needs no more than a file that can be read; without one it is an error.

    Raises:
        StoreError: If there is none, or it is unreadable, not writable, not ours, or newer.
    """
    path = Path(url.database or "")
    if create:
        _make_folder(path)
    elif not _is_file(path):
        raise StoreError(
            f"there is no database at {path}; record runs with `wattbench run … --db {path}`, or "
            f"name another with --db or {ENVIRONMENT_VARIABLE}"
        )
    try:
        if create:
            access: _Access = "mode=rwc"
            current = _schema_of(path, "mode=ro") if _is_file(path) else None
        else:
            access, current = _way_in(path)
        if current != _known_schemas()[0]:
            _migrate(url, current, access)
        return _engine(url, access)
    except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
        raise StoreError(explain(path, error)) from error


def check_place(url: URL) -> None:
    """Refuse, before any work is done, a database that could not be written later.

    Raises:
        StoreError: If it exists and is not usable, or its folder cannot be made or written.
    """
    path = Path(url.database or "")
    if _is_file(path):
        engine = connect(url, create=True)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        except sa.exc.DatabaseError as error:
            raise StoreError(explain(path, error)) from error
        finally:
            engine.dispose()
        return
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        place = path if path.is_dir() else folder
        what = "is a folder" if path.is_dir() else "is not a folder that can be written"
        raise StoreError(
            f"the database {path} cannot be created: {place} {what}; name another place with --db"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise StoreError(
            f"the database {str(path)[:200]} cannot be looked up: {error.strerror}; name another "
            f"place with --db"
        ) from error


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the folder {path.parent} for the database cannot be made: {error.strerror}; name "
            f"another place with --db"
        ) from error


def _way_in(path: Path) -> tuple[_Access, str | None]:
    """How to open a database for reading, and its schema.

    A reader that may write leaves no -wal and -shm behind, so it opens for writing where it can.
    SQLite cannot read without them in a folder that takes no files, unless told that nobody
    changes the database; and nobody does who has no -wal there.
    """
    try:
        return "mode=rw", _schema_of(path, "mode=ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        wal = path.with_name(path.name + "-wal")
        if wal.exists() and wal.stat().st_size:
            raise StoreError(
                f"the database {path} has records in {wal.name} that cannot be read here "
                f"({error}); copy both to a folder that can be written"
            ) from error
    return "immutable=1", _schema_of(path, "immutable=1")


def _open(path: Path, access: _Access) -> sqlite3.Connection:
    """Open by a URI in which no character of the path has a meaning."""
    place = quote(os.fsencode(path.absolute()))
    # The engine hands a connection from one thread to another, but never to two at once.
    return sqlite3.connect(
        f"file://{place}?{access}", uri=True, timeout=30.0, check_same_thread=False
    )


def _engine(url: URL, access: _Access) -> sa.Engine:
    path = Path(url.database or "")
    engine = sa.create_engine(url, creator=lambda: _open(path, access))
    sa.event.listen(engine, "connect", _for_writing if access == "mode=rwc" else _for_reading)
    return engine


def _for_writing(connection: Any, _record: Any) -> None:
    """WAL lets readers in while a run writes; FULL makes an acknowledged record survive."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _for_reading(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only=ON")


def _schema_of(path: Path, access: _Access) -> str | None:
    """Schema of a database, read without changing a byte of it; None if it is new or empty.

    Raises:
        StoreError: If it is somebody else's, or of a newer wattbench.
    """
    with closing(_open(path, access)) as connection:
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


def _migrate(url: URL, current: str | None, access: _Access) -> None:
    """Bring a database to the current schema, from an older one or from nothing.

    Raises:
        StoreError: If it cannot be written where it lies.
    """
    from alembic import command

    path = Path(url.database or "")
    if access != "mode=rwc" and (access == "immutable=1" or not os.access(path, os.W_OK)):
        raise StoreError(
            f"{path} has an older schema ({current or 'none'}) and cannot be migrated where it "
            f"lies, as nothing can be written there; copy it elsewhere and name the copy with --db"
        )
    engine = _engine(url, "mode=rwc")
    try:
        with engine.begin() as connection:
            command.upgrade(_alembic_config(connection), "head")
    finally:
        engine.dispose()


def _alembic_config(connection: sa.Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def explain(path: Path, error: Exception) -> str:
    """One sentence on why a database cannot be used, from SQLite's few words."""
    cause = str(getattr(error, "orig", None) or error)
    if "not a database" in cause:
        return f"{path} is not a readable SQLite database ({cause}); name another file with --db"
    if any(word in cause for word in ("malformed", "Could not decode", "disk I/O")):
        return (
            f"the database {path} is damaged ({cause}); take a copy from before, or let SQLite's "
            f"`.recover` save what can be saved"
        )
    if "unable to open" in cause or "readonly" in cause:
        purpose = " for writing" if "readonly" in cause else ""
        return (
            f"the database {path} cannot be opened{purpose} ({cause}); check the permissions of "
            f"the file and its folder, or name another place with --db"
        )
    if "locked" in cause:
        return f"the database {path} is locked by another process ({cause}); try again later"
    return f"the database {path} cannot be used: {cause}"
