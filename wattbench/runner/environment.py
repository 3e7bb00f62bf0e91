"""What a run depended on besides its plan: machine, operating system, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import psutil

from wattbench import __version__
from wattbench.core.run import Json
from wattbench.hardware.detect import cpu_title, is_virtual

PACKAGES = ("numpy", "openvino-genai", "aiohttp", "sqlalchemy")


def environment() -> dict[str, Json]:
    """Facts about this machine and its software, as JSON; no user name, no path, no secret."""
    return {
        "wattbench": __version__,
        "python": sys.version.split()[0],
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": cpu_title(),
        "cpu_count": os.cpu_count(),
        "virtual_machine": is_virtual(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average_1min": os.getloadavg()[0],
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
