"""A server's own metrics: read, kept with the run, and shown as means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from wire import workload_file

from wattbench.backends.server_metrics import StateReader
from wattbench.core.run import ServerState

VLLM = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="m"}} 3.0
vllm:num_requests_running{{engine="1",model_name="m"}} 2.0
vllm:num_requests_waiting{{engine="0",model_name="m"}} 1.0
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} 0.2
vllm:kv_cache_usage_perc{{engine="1",model_name="m"}} 0.4
vllm:prefix_cache_queries_total{{engine="0"}} {queries}
vllm:prefix_cache_hits_total{{engine="0"}} {hits}
vllm:spec_decode_num_draft_tokens_total{{engine="0"}} {drafts}
vllm:spec_decode_num_accepted_tokens_total{{engine="0"}} {accepted}
"""
SGLANG = """sglang:num_running_reqs{model_name="m"} 4.0
sglang:num_queue_reqs{model_name="m"} 7.0
sglang:token_usage{model_name="m"} 0.28
sglang:cache_hit_rate{model_name="m"} 0.5
"""
LLAMA = """llamacpp:requests_processing 2
llamacpp:requests_deferred 5
llamacpp:kv_cache_usage_ratio NaN
"""


def vllm(queries: int, hits: int, drafts: int = 0, accepted: int = 0) -> str:
    return VLLM.format(queries=queries, hits=hits, drafts=drafts, accepted=accepted)


def test_vllm_by_what_happened_since_the_last_page() -> None:
    """Engines behind one page add up, their fractions are averaged, counters are differences."""
    reader = StateReader()
    first = reader.take(vllm(1000, 900))
    assert first is not None
    assert (first.requests_running_count, first.requests_waiting_count) == (5.0, 1.0)
    assert first.kv_cache_used_fraction == pytest.approx(0.3)
    assert first.prefix_cache_hit_fraction is None
    second = reader.take(vllm(1200, 950, 40, 10))
    assert second is not None
    assert second.prefix_cache_hit_fraction == 0.25
    assert second.spec_decode_acceptance_fraction == 0.25
    restarted = reader.take(vllm(0, 0))
    assert restarted is not None
    assert restarted.prefix_cache_hit_fraction is None


def test_other_servers() -> None:
    """What a page does not tell, or tells as no number, is unknown."""
    assert StateReader().take(SGLANG) == ServerState(
        requests_running_count=4.0,
        requests_waiting_count=7.0,
        kv_cache_used_fraction=0.28,
        prefix_cache_hit_fraction=0.5,
    )
    assert StateReader().take(LLAMA) == ServerState(
        requests_running_count=2.0, requests_waiting_count=5.0
    )
    assert StateReader().take("<html>login</html>") is None


def test_kept_with_a_run(tmp_path: Path) -> None:
    """The document of a run has the means over its window."""
    command = [sys.executable, "-m", "wattbench", "run", str(workload_file(tmp_path, 3.0, 0.3))]
    command += ["--serve", f"{sys.executable} -m wattbench emulate h100-sxm --port {{port}}"]
    command += ["--backend", "openai,url=http://127.0.0.1:{port}/v1", "--meter", "none"]
    command += ["--db", str(tmp_path / "x.db"), "--hardware", "h100-sxm", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    assert point["server"]["requests_running_count"] >= 0
    assert 0 <= point["server"]["kv_cache_used_fraction"] < 1
    assert point["server"]["prefix_cache_hit_fraction"] is None
