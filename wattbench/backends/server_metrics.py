"""How busy a server is, by its own ``/metrics``: vLLM, SGLang and llama-server.

Names as the servers print them: vLLM's metrics documentation (the KV cache by its old and its new
name), SGLang's production metrics, and the README of llama-server. Counters become the fraction
since the page was read before, so that a value is of this second and not of the server's life.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Mapping

from wattbench.backends.http_client import BrokenAnswer, HttpClient, NoConnection
from wattbench.core.run import ServerState
from wattbench.interchange.prometheus_text import parse_page

_RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing")
_WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred")
_KV = (
    *("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    *("sglang:token_usage", "llamacpp:kv_cache_usage_ratio"),
)
_PREFIX = (
    ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
    ("vllm:gpu_prefix_cache_hits_total", "vllm:gpu_prefix_cache_queries_total"),
)
_DRAFT = (
    ("vllm:spec_decode_num_accepted_tokens_total", "vllm:spec_decode_num_draft_tokens_total"),
)
_MEANS = frozenset(_KV) | {"sglang:cache_hit_rate"}
"""Fractions: of several engines behind one page the mean counts, of all else the sum."""
_WAIT_S = 1.0
_PAGE_BYTES = 4 * 2**20


class StateReader:
    """Reads pages of one server, one after another."""

    def __init__(self) -> None:
        self._before: Mapping[str, float] = {}

    def take(self, page: str) -> ServerState | None:
        """The state that a page tells, None if it tells none."""
        values = _values(page)
        before, self._before = self._before, values
        state = ServerState(
            requests_running_count=_first(values, _RUNNING),
            requests_waiting_count=_first(values, _WAITING),
            kv_cache_used_fraction=_first(values, _KV),
            prefix_cache_hit_fraction=_share(values, before, _PREFIX)
            if "sglang:cache_hit_rate" not in values
            else values["sglang:cache_hit_rate"],
            spec_decode_acceptance_fraction=_share(values, before, _DRAFT),
        )
        return None if state == ServerState() else state


async def metrics_page(client: HttpClient, target: str) -> str | None:
    """The ``/metrics`` beside an API, None if there is no such page.

    Args:
        client: An open client.
        target: Path of an endpoint of the API, below ``/v1``.
    """
    try:
        async with asyncio.timeout(_WAIT_S):
            place = f"{target.rpartition('/v1/')[0]}/metrics"
            status, page = await client.fetch("GET", place, {}, limit_bytes=_PAGE_BYTES)
    except (BrokenAnswer, NoConnection, OSError, TimeoutError):
        return None
    return page if status == 200 else None


def _values(page: str) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for sample in parse_page(page, ("vllm:", "sglang:", "llamacpp:")):
        if math.isfinite(sample.value):
            found[sample.name].append(sample.value)
    return {
        name: sum(values) / (len(values) if name in _MEANS else 1) for name, values in found.items()
    }


def _first(values: Mapping[str, float], names: tuple[str, ...]) -> float | None:
    return next((values[name] for name in names if name in values), None)


def _share(
    values: Mapping[str, float], before: Mapping[str, float], names: tuple[tuple[str, str], ...]
) -> float | None:
    """Growth of a counter per growth of another; None if there is none, or a counter restarted."""
    for part, whole in names:
        if all(name in page for name in (part, whole) for page in (values, before)):
            grown, of = values[part] - before[part], values[whole] - before[whole]
            return grown / of if of > 0 and 0 <= grown <= of else None
    return None
