"""Imported results beside a run of our own: ``make test-peers``.

Each load generator puts the same load on one emulated machine: 4 users, prompts and answers of
fixed length. What it writes is imported, and agrees with `wattbench run` of that load within
``AGREE``, and with what the tool itself computed of the same requests within ``OWN``. A tool that
is not installed is said to be so. Names on the command line choose tools.
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
    print(f"{'tool':12s} {'figure':20s} {'imported':>9s} {'wattbench':>9s} {'off':>7s} {'own':>7s}")
    verdicts = []
    with tempfile.TemporaryDirectory() as folder, _emulator() as url:
        keep_tokenizer(Path(folder) / "hub")
        ours = _own_run(url, Path(folder))
        for peer in chosen:
            if not peer.program.exists():
                print(f"{peer.name:12s} not installed: there is no {peer.program}")
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
    log, database = folder / "log.txt", folder / "imported.sqlite"
    hub = folder.parent / "hub"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub)}
    with log.open("w") as out:
        command = peer.command(url, _model(url), folder)
        done = subprocess.run(command, stdout=out, stderr=out, env=environment, check=False)
    if done.returncode:
        print(f"{peer.name:12s} ended with {done.returncode}: {log.read_text()[-600:]}")
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
    return all([whole, *(_line(peer, n, point["metrics"], ours, reported) for n in AGREE)])


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
