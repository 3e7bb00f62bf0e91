"""Other load generators, imported and wrapped, beside a run of our own: ``make test-peers``.

Each puts the same load on one emulated machine: 4 users, prompts and answers of fixed length. It
runs under `wattbench wrap`: the joules hold what the machine itself says of that window in their
interval. What it writes is imported as well, and agrees with `wattbench run` of that load within
``AGREE``, and with what the tool itself computed of the same requests within ``OWN``. A tool that
is not installed is said to be so, and none agrees then. Names on the command line choose tools.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_client import keep_tokenizer
from peer_list import ALL, INPUT_TOKENS, OUTPUT_TOKENS, SECONDS, USERS, Peer

from wattbench.store import connect, database_url, load_run, select_runs

AGREE = {"output_tokens_per_s": 0.05, "ttft_s": 0.05, "tpot_s": 0.05, "e2e_s": 0.05}
"""Largest difference from our own run, as a part of it; repeats on a busy machine: 1.3 %."""
OWN = {"ttft_s": 0.01, "tpot_s": 0.01, "e2e_s": 0.01}
"""Largest difference from the tool's own median of the same requests."""
MODEL = "llama-3.1-70b"
POWER = "max_batch=1"
"""One answer after the other. In a batch TTFT depends on whether users of a closed loop fall into
step, which differs from run to run by a factor of two, whoever measures; in a queue it does not."""
WORKLOAD = f"""
name: peers
about: Prompts and answers of one length each, as the other load generators are told as well.
session:
  input_tokens: {{kind: fixed, value: {INPUT_TOKENS}}}
  output_tokens: {{kind: fixed, value: {OUTPUT_TOKENS}}}
arrivals: {{kind: closed, concurrency: [{USERS}]}}
warmup: {{duration_s: 2.0}}
measure: {{duration_s: {SECONDS}}}
"""


def main(names: list[str]) -> int:
    """Run, import and compare; the exit code."""
    chosen = [peer for peer in ALL if not names or peer.name in names]
    print(f"{'tool':12s} {'figure':20s} {'imported':>9s} {'expected':>9s} {'off':>7s} {'own':>7s}")
    verdicts = []
    with tempfile.TemporaryDirectory() as folder, _emulator() as url:
        keep_tokenizer(Path(folder) / "hub")
        ours = _own_run(url, Path(folder))
        for peer in chosen:
            if not peer.program.exists():
                print(f"{peer.name:12s} not installed: there is no {peer.program}{peer.hint}")
                verdicts.append(False)
                continue
            place = Path(folder) / peer.name
            place.mkdir()
            verdicts.append(_agrees(peer, url, place, ours))
    return 0 if verdicts and all(verdicts) else 1


@contextlib.contextmanager
def _emulator() -> Iterator[str]:
    """An emulated machine in a process of its own: its URL."""
    command = [sys.executable, "-m", "wattbench", "emulate", "h100-sxm", "--model", MODEL]
    command += ["--power", POWER, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[1]
        finally:
            server.terminate()


def _own_run(url: str, folder: Path) -> dict[str, Any]:
    workload = folder / "peers.yaml"
    workload.write_text(WORKLOAD, encoding="utf-8")
    options = ["--backend", f"openai,url={url}/v1,api=completions", "--meter", "none"]
    database = folder / "own.sqlite"
    _wattbench("run", str(workload), *options, "--db", str(database), "--json")
    return dict(_point(database)["metrics"])


def _agrees(peer: Peer, url: str, folder: Path, ours: dict[str, Any]) -> bool:
    """Run one tool and print a line for each figure; whether all of them agree."""
    database = folder / "imported.sqlite"
    wrapped = _wrapped(peer, url, folder)
    if wrapped is None:
        return False
    paths = [str(folder / name) for name in peer.results]
    told = _wattbench("import", *paths, "--format", "auto", "--db", str(database), "--json")
    runs = [(one["format"], run) for one in told["imports"] for run in one["runs"]]
    point = _point(database)
    # GuideLLM breaks off what its users are at when its time is over.
    whole = [name for name, _ in runs] == [peer.name] and point["requests"]["failed"] <= USERS
    if not whole:
        print(f"{peer.name:12s} {len(runs)} runs, requests {point['requests']}")
    reported = _reported(database)
    lines = [_line(peer, n, point["metrics"], ours, reported) for n in AGREE]
    return all([whole, *lines, _joules(peer, wrapped, url)])


def _wrapped(peer: Peer, url: str, folder: Path) -> dict[str, Any] | None:
    """Run one tool under our meters: its only point, None if it failed."""
    log = folder / "log.txt"
    hub = folder.parent / "hub"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub)}
    options = [
        "--meter",
        f"prometheus,url={url}/metrics",
        "--hardware",
        "h100-sxm",
        "--idle-s",
        "3",
    ]
    options += [word for name in peer.results for word in ("--results", str(folder / name))]
    command = [sys.executable, "-m", "wattbench", "wrap", *options, "--json"]
    command += [
        "--db",
        str(folder / "wrapped.sqlite"),
        "--",
        *peer.command(url, _model(url), folder),
    ]
    with log.open("w") as out:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=out, env=environment, check=False
        )
    if done.returncode:
        print(f"{peer.name:12s} ended with {done.returncode}: {log.read_text()[-600:]}")
        return None
    (point,) = json.loads(done.stdout)["points"]
    return dict(point)


def _joules(peer: Peer, point: dict[str, Any], url: str) -> bool:
    """Print the joules of the wrapped tool beside the machine's own; whether they agree."""
    window, gross = point["window"], point["energy"]["headline"]["gross_joules"]
    place = f"{url}/truth?start={window['start_unix_s']}&end={window['end_unix_s']}"
    with urllib.request.urlopen(place) as answer:
        truth = float(json.load(answer)["energy_joules"])
    verdict = point["verdict"]
    good: bool = gross["low"] <= truth <= gross["high"] and verdict["energy"] == "valid"
    print(
        f"{peer.name:12s} {'joules, wrapped':20s} {gross['value']:9.1f} {truth:9.1f} "
        f"{gross['value'] / truth - 1:+7.1%}  interval {gross['low']:.1f} to {gross['high']:.1f}, "
        f"{verdict['energy']}, {point['energy']['headline']['kind']}"
        f"{'' if good else '  OUTSIDE'}",
        flush=True,
    )
    return good


def _line(
    peer: Peer, name: str, theirs: dict[str, Any], ours: dict[str, Any], own: dict[str, float]
) -> bool:
    value, expected = _median(theirs[name]), _median(ours[name])
    off = value / expected - 1
    own_off = value / own[name] - 1 if name in OWN and name in own else 0.0
    good = abs(off) <= AGREE[name] and abs(own_off) <= OWN.get(name, 1.0)
    print(
        f"{peer.name:12s} {name:20s} {value:9.4f} {expected:9.4f} {off:+7.1%} {own_off:+7.1%}"
        f"{'' if good else '  TOO FAR'}",
        flush=True,
    )
    return good


def _median(metric: dict[str, Any]) -> float:
    return float(metric["p50"]["value"] if "p50" in metric else metric["value"])


def _reported(database: Path) -> dict[str, float]:
    """Medians that the tool itself computed."""
    engine = connect(database_url(str(database)), create=False)
    (run,) = select_runs(engine, "latest")
    raw = load_run(engine, run.run_id)
    return {figure.metric: figure.value for figure in raw.reported if figure.statistic == "p50"}


def _model(url: str) -> str:
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        return str(json.load(answer)["data"][0]["id"])


def _point(database: Path) -> dict[str, Any]:
    (point,) = _wattbench("show", "latest", "--db", str(database), "--json")["points"]
    return dict(point)


def _wattbench(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "wattbench", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
