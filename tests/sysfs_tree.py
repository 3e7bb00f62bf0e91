"""A tree of kernel files in a folder, whose counters run at a known power."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from powerless import without_powers

from wattbench.core.errors import MeterError


def write(path: Path, value: object) -> None:
    """Write one file at one instant, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(f"{value}\n")
    os.replace(draft, path)


def plant(folder: Path, files: Mapping[str, object]) -> Path:
    """Write several files of a folder."""
    for name, value in files.items():
        write(folder / name, value)
    return folder


@contextmanager
def running(
    files: Mapping[Path, Callable[[float], object]], period_s: float = 0.01
) -> Iterator[None]:
    """Keep files up to date with functions of the time since the begin [s]."""
    done = threading.Event()
    begin_s = time.monotonic()

    def update() -> None:
        elapsed_s = time.monotonic() - begin_s
        for path, value in files.items():
            write(path, value(elapsed_s))

    def run() -> None:
        while not done.wait(period_s):
            update()

    update()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def refused_to_read(meter: str) -> str:
    """What ``open_source`` says of a meter expression when even root obeys permissions."""
    name, _, arguments = meter.partition(" ")
    module, _, stem = name.partition(":")

    def opened() -> str:
        try:
            exec(  # noqa: S102 - as a test wrote it
                f"from wattbench.meters.{module} import {stem}Meter, {stem}Options\n"
                f"{stem}Meter({stem}Options({arguments}), None).open_source()"
            )
        except MeterError as error:
            return str(error)
        return ""

    return without_powers(opened)
