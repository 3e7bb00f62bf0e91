"""Processes of this machine: who listens on a port, and whom it started."""

from __future__ import annotations

from contextlib import suppress


def listening_process_ids(port: int) -> tuple[int, ...]:
    """Processes that listen on a TCP port of this machine, with all that they started.

    Empty if none does, or if the system does not tell: other users' processes show their ports to
    root only.
    """
    import psutil

    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return ()
    found: set[int] = set()
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN
        if (
            listens
            and getattr(connection.laddr, "port", None) == port
            and connection.pid is not None
        ):
            found |= _with_children(connection.pid)
    return tuple(sorted(found))


def _with_children(process_id: int) -> set[int]:
    import psutil

    found = {process_id}
    with suppress(psutil.Error):
        found |= {child.pid for child in psutil.Process(process_id).children(recursive=True)}
    return found
