"""``python -m wattbench``, and the command: what Ctrl-C interrupts, from the first import on."""

import sys


def main() -> None:
    """Import the command line, which takes a moment, and run it."""
    try:
        from wattbench.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("wattbench: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
