"""Processes of this machine: who listens on a port, and whom it started."""

from __future__ import annotations

import socket
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


def is_this_machine(host: str) -> bool:
    """Whether a host is one of this machine's own names or addresses."""
    import psutil

    if host in ("localhost", "0.0.0.0", socket.gethostname()) or host.startswith("127."):  # noqa: S104
        return True
    addresses = [each for found in psutil.net_if_addrs().values() for each in found]
    return host in {address.address.partition("%")[0] for address in addresses}
