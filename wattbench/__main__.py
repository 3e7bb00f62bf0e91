"""``python -m wattbench``, and the command: what Ctrl-C interrupts, from the first import on."""

import atexit
import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Import the command line, which takes a moment, and run it."""
    try:
        from wattbench.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("wattbench: interrupted\n")
        _end()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end()
        raise


def _end() -> None:
    """End with 130: Python itself ends by the signal if it came while a text was executed."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
