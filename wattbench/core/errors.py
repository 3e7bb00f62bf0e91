"""Every error that wattbench raises on purpose.

    WattbenchError                 exit code 1: a run failed or was refused
    ├── UsageError                 exit code 2: what the user wrote cannot be meant
    │   ├── DocumentError          a YAML file: names file, line and key
    │   └── OptionError            a plug-in option: names plug-in, key and value
    ├── BackendError               the engine cannot be reached, loaded or understood
    │   ├── DeviceMissing          exit code 2: no such device on this machine
    │   └── EngineDied             the engine's process ended under the run
    ├── MeterError                 a meter cannot be opened or read
    ├── Interrupted                exit code 130: Ctrl-C
    ├── StoreError                 the database cannot be opened, read or written
    └── InsufficientCoverage       a trace does not carry an energy for the window

A message is one paragraph: what and where, the offending value, the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class WattbenchError(Exception):
    """Base of all errors that are shown to a user without a traceback."""

    exit_code = 1


class UsageError(WattbenchError):
    """The command line, a file or an option does not mean anything."""

    exit_code = 2


class DocumentError(UsageError):
    """A YAML document is unreadable, has an unknown key or an impossible value."""


class OptionError(UsageError):
    """A plug-in was given an unknown option or a value that it cannot take."""


class BackendError(WattbenchError):
    """An engine cannot be reached, loaded or understood."""


class DeviceMissing(BackendError):
    """The device that an engine was to run on is not there; in a sweep the others go on."""

    exit_code = 2


class EngineDied(BackendError):
    """An engine process ended while requests were running."""


class MeterError(WattbenchError):
    """A meter cannot be opened or read.

    Args:
        reason: What is in the way.
        fix: The line, or the act, that gets it out of the way; None if nothing does.
    """

    def __init__(self, reason: str, fix: str | None = None) -> None:
        super().__init__(reason if fix is None else f"{reason}. {fix}")
        self.reason = reason
        self.fix = fix


class Interrupted(WattbenchError):
    """The user stopped it by Ctrl-C; the exit code is a shell's, 128 and the signal."""

    exit_code = 130


class StoreError(WattbenchError):
    """A database cannot be opened, read or written."""


class InsufficientCoverage(WattbenchError):
    """A trace does not carry an energy for the window: a finding of the result, seldom an exit.

    Args:
        reason: Reason code of the refusal, one of those listed in ``wattbench.checks``.
        message: The same for a reader.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` for the known word nearest to a wrong one, else nothing."""
    longer = [name for name in known if word and name.startswith(word)]
    near = longer[:1] or difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
