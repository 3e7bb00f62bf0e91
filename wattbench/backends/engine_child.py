"""The child process that holds an engine: loads it, hears the parent, tells what comes out.

An engine that keeps the interpreter's lock while it computes cannot hold up the event loop that
stamps tokens and samples power if it has a process of its own.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from wattbench.backends.engine_messages import (
    Cancel,
    Close,
    Ended,
    Failed,
    Inbox,
    Ready,
    Step,
    Submit,
    packed,
)
from wattbench.core.errors import BackendError, DeviceMissing

_READ_BYTES = 1 << 16
_REASON_CHARACTERS = 400

Tell = Callable[[Step], None]
"""Takes what a step gave; before it returns the engine may be given requests and cancellations."""


class Engine(Protocol):
    """What runs in the child."""

    ready: Ready

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        ...

    def submit(self, message: Submit) -> Ended | None:
        """Take a request; returns its end if the engine refuses it."""
        ...

    def cancel(self, ident: int) -> None:
        """Forget a request; one that has just ended is gone already."""
        ...

    def step(self, tell: Tell) -> None:
        """Compute one step of everything that runs, or one batch to its end."""
        ...


class _Left(BaseException):
    """The parent has closed the stream, or asked to leave: not an error for an engine to catch."""


def child_main(
    link: socket.socket, log_path: str, load: Callable[[Any, int], Engine], settings: object
) -> None:
    """Load the engine and serve it until the parent closes the stream or is gone.

    Args:
        link: Stream to the parent.
        log_path: File that takes everything the engine prints.
        load: Makes the engine from the settings and the log's descriptor; its BackendErrors are
            told as they are.
        settings: What to load.
    """
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = os.open(log_path, os.O_RDWR | os.O_APPEND)
    Path(log_path).unlink()
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        engine = load(settings, log)
    except BackendError as error:
        link.sendall(packed(Failed(str(error), isinstance(error, DeviceMissing))))
        return
    # What was printed while loading is no cause of a later failure.
    os.ftruncate(log, 0)
    try:
        link.sendall(packed(engine.ready))
        _Service(link, engine).run()
    except (ConnectionError, _Left):
        return


class _Service:
    """Steps while there is work, sleeps on the stream while there is none."""

    def __init__(self, link: socket.socket, engine: Engine) -> None:
        self._link, self._engine, self._inbox = link, engine, Inbox()

    def run(self) -> None:
        while True:
            self._hear()
            self._engine.step(self._tell)

    def _tell(self, step: Step) -> None:
        if step.pieces or step.ended:
            self._link.sendall(packed(step))
        self._hear(wait=False)

    def _hear(self, wait: bool = True) -> None:
        """Take what the parent sent; without work wait for some."""
        while (wait and not self._engine.busy) or select.select([self._link], [], [], 0)[0]:
            data = self._link.recv(_READ_BYTES)
            if not data:
                raise _Left
            refused: dict[int, Ended] = {}
            for message in self._inbox.feed(data):
                if isinstance(message, Close):
                    raise _Left
                if isinstance(message, Cancel):
                    self._engine.cancel(message.ident)
                elif ended := self._engine.submit(message):
                    refused[message.ident] = ended
            if refused:
                self._link.sendall(packed(Step({}, refused)))


def reason_in_one_line(error: BaseException) -> str:
    """An engine's message without its source positions and line breaks."""
    text = re.sub(r"(Exception from|Check '.*?' failed at) \S+:\d+:", " ", str(error))
    return " ".join(text.split())[:_REASON_CHARACTERS] or type(error).__name__
