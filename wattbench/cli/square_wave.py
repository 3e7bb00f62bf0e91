"""A load that goes on and off once a second, so that sensors show how they follow it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CPU_LOAD = """
import itertools, os, time
busy_s = 0.5
while os.getppid() == PARENT:
    end = (time.time() // 1) + 1
    stop = end - 1 + busy_s
    while time.time() < stop:
        sum(i * i for i in range(2000))
    time.sleep(max(0.0, end - time.time()))
"""
GPU_LOAD = """
import os, time, torch
matrices = [torch.randn(8192, 8192, device=f"cuda:{n}", dtype=torch.bfloat16)
            for n in range(torch.cuda.device_count())]
print(len(matrices), flush=True)
while os.getppid() == PARENT:
    end = (time.time() // 1) + 1
    while time.time() < end - 0.5:
        for m in matrices:
            m @ m
        for n in range(len(matrices)):
            torch.cuda.synchronize(n)
    time.sleep(max(0.0, end - time.time()))
"""


@contextmanager
def square_wave() -> Iterator[list[str]]:
    """Load every processor, and every CUDA device if torch is here, half of each second.

    Yields:
        What is loaded.
    """
    import os

    parent = f"PARENT = {os.getpid()}\n"
    started = [_start(parent + CPU_LOAD) for _ in range(os.cpu_count() or 1)]
    loads = [f"{len(started)} processors"]
    gpu = _start(parent + GPU_LOAD)
    try:
        count = gpu.stdout.readline().strip() if gpu.stdout else b""
        if count.isdigit() and int(count):
            loads.append(f"{int(count)} CUDA devices")
        yield loads
    finally:
        for process in (*started, gpu):
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def _start(source: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", source]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
