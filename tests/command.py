"""The command line as a user calls it, in this process: a new one takes a second to import."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess

from wattbench.cli.main import main


def called(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What ``wattbench ARGUMENTS`` prints, and its exit code; an escaped exception escapes."""
    before, out, err, code = dict(os.environ), io.StringIO(), io.StringIO(), 0
    os.environ.update(environment)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(list(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
