"""``python -m wattbench``, and the command: what Ctrl-C interrupts, from the first import on."""

import atexit
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Import the command line, which takes a moment, and run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where a shell started us with it ignored
        signal.signal(signal.SIGINT, _interrupted)
    from wattbench.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    try:
        run()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end()
        raise
    except BaseException as error:
        if _from_interrupt(error):
            _interrupted()
        raise


def _from_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C lies under it: Python wraps what is raised while it makes a class."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _interrupted(_number: int = signal.SIGINT, _frame: FrameType | None = None) -> None:
    sys.stderr.write("wattbench: interrupted\n")
    _end()


def _end() -> None:
    """End with 130: Python itself ends by the signal if it came while a text was executed."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
