"""Install, start and test foreign servers: ``make test-engines``.

Ends with 0 if at least two of them passed. A server that cannot be installed is reported with its
reason; what is installed already is taken as it is. Names on the command line choose servers.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from engine_list import ENGINES, ROOT, TRANSFORMERS, Engine
from engine_model import write_models, write_weights

ENOUGH = 2
_CHECKS = Path(__file__).with_name("check_engines.py")


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one server."""

    engine: str
    version: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether it was tested and nothing went wrong."""
        return self.passed > 0 and not self.failed and not self.skipped


def main(names: list[str]) -> int:
    """Install and test; the exit code."""
    chosen = [engine for engine in ENGINES if not names or engine.name in names]
    ROOT.mkdir(exist_ok=True)
    write_models()
    rows = [_row(engine) for engine in chosen]
    print(f"\n{'engine':<14} {'version':<22} {'passed':>6} {'failed':>6} {'skipped':>7}  reason")
    for row in rows:
        print(
            f"{row.engine:<14} {row.version:<22} {row.passed:>6} {row.failed:>6} {row.skipped:>7}"
            f"  {row.reason}"
        )
    return 0 if sum(row.good for row in rows) >= min(ENOUGH, len(chosen)) else 1


def _row(engine: Engine) -> Row:
    reason = _install(engine)
    if reason is None and engine is TRANSFORMERS:
        write_weights()
    if reason is not None:
        return Row(engine.name, "–", skipped=1, reason=reason)
    return _test(engine, _version(engine))


def _install(engine: Engine) -> str | None:
    """Install a server unless it is there; why it cannot be, None if it is."""
    stamp, log = engine.folder / "installed.stamp", engine.folder / "install.log"
    if stamp.exists():
        return None
    engine.folder.mkdir(parents=True, exist_ok=True)
    print(f"installing {engine.name} into {engine.folder} (log: {log}) …", flush=True)
    with log.open("w") as out:
        for step in engine.install:
            try:
                done = subprocess.run(
                    step, cwd=engine.folder, stdout=out, stderr=out, check=False
                ).returncode
            except OSError as error:
                return f"{step[0]}: {error.strerror}"
            if done:
                return f"exit code {done} from: {' '.join(step)[:80]} (see {log})"
    stamp.touch()
    return None


def _version(engine: Engine) -> str:
    done = subprocess.run(
        engine.version, cwd=engine.folder, capture_output=True, text=True, check=False
    )
    words = (done.stdout + done.stderr).split("version:")[-1].split()
    return words[0] if "version:" in done.stdout + done.stderr else words[-1] if words else "?"


def _test(engine: Engine, version: str) -> Row:
    print(f"testing {engine.name} {version} …", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", engine.name]
        subprocess.run(
            [sys.executable, *arguments, f"--junitxml={report}", str(_CHECKS)], check=False
        )
        if not report.exists():
            return Row(engine.name, version, failed=1, reason="the tests did not run")
        suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314 – our own report
    assert suite is not None
    bad = [found.get("message", "") for found in suite.iter() if found.tag in ("failure", "error")]
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    reason = " ".join(bad[0].split())[:100] if bad else ""
    return Row(engine.name, version, total - len(bad) - skipped, len(bad), skipped, reason)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
