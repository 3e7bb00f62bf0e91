"""SGLang's ``bench_serving`` and llm-optimizer: never aligned, zeros of nothing refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from result_files import imported, shown, write_json, write_lines

from wattbench.core.run import stated
from wattbench.interchange.results import BadDocument, Measurement, read_results


def line(**changes: Any) -> dict[str, Any]:
    """Two requests of 3 tokens in 2 s."""
    value: dict[str, Any] = {
        "tag": None,
        "backend": "sglang",
        "dataset_name": "random",
        "request_rate": 4.0,
        "max_concurrency": 2,
        "sharegpt_output_len": None,
        "random_input_len": 10,
        "random_output_len": 3,
        "duration": 2.0,
        "completed": 2,
        "total_input_tokens": 20,
        "total_output_tokens": 6,
        "total_output_tokens_retokenized": 6,
        "request_throughput": 1.0,
        "input_throughput": 10.0,
        "output_throughput": 3.0,
        "total_throughput": 13.0,
        "mean_e2e_latency_ms": 200.0,
        "median_e2e_latency_ms": 200.0,
        "std_e2e_latency_ms": 0.0,
        "p99_e2e_latency_ms": 210.0,
        "median_ttft_ms": 100.0,
        "p95_ttft_ms": 110.0,
        "median_tpot_ms": 50.0,
        "median_itl_ms": 50.0,
        "concurrency": 0.2,
        "accept_length": None,
    }
    return value | changes


DETAILS = {
    "input_lens": [10, 10, 10],
    "output_lens": [3, 3, 0],
    "ttfts": [0.1, 0.1, 0.0],
    "itls": [[0.05, 0.05], [0.05, 0.05], []],
    "generated_texts": ["a", "b", ""],
    "errors": ["", "", "HTTP 500"],
}


def read_one(path: Path) -> Measurement:
    """The only measurement of a file."""
    ((_, name, found),) = read_results([path])
    assert name == "sglang-bench"
    assert not isinstance(found, BadDocument), found
    (one,) = found
    return one


def refused(one: Measurement) -> dict[str, str]:
    """Why, of each refused field."""
    return {note.field: note.why for note in one.notes if note.fate == "refused"}


def test_totals(tmp_path: Path) -> None:
    """Milliseconds become seconds; no instant is told, so nothing is aligned."""
    path = write_lines(tmp_path / "s.jsonl", [line(), line(max_concurrency=8)])
    runs = imported(tmp_path / "db", path)["imports"][0]["runs"]
    assert [run["alignment"] for run in runs] == ["unaligned", "unaligned"]
    assert [run["operating_point"]["concurrency"] for run in runs] == [2, 8]
    point = shown(tmp_path / "db")[0]
    assert point["metrics"]["e2e_s"]["p50"]["value"] == pytest.approx(0.2)
    assert point["metrics"]["ttft_s"]["p50"]["value"] == pytest.approx(0.1)
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(3.0)
    assert point["metrics"]["energy_per_output_token_joules"]["value"] is None


def test_details_place_no_request(tmp_path: Path) -> None:
    """The lists have no starts; failures are counted from them."""
    one = read_one(write_json(tmp_path / "s.json", line() | DETAILS))
    assert (one.layout, one.requests, one.clock, one.window_s) == ("details", None, None, None)
    assert stated(one.reported, "failed_count") == 1
    assert "no start" in refused(one)["ttfts"]


def test_infinite_rate(tmp_path: Path) -> None:
    """SGLang's default rate stands as bare ``Infinity``, which is no JSON and no rate."""
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(line(request_rate=float("inf"))) + "\n", encoding="utf-8")
    assert read_one(path).operating_point == {"concurrency": 2}
    path.write_text(json.dumps(line(request_rate="trace")) + "\n", encoding="utf-8")
    assert read_one(path).operating_point == {"concurrency": 2}


def test_infinity_elsewhere_is_an_error(tmp_path: Path) -> None:
    """A figure that is infinite is refused by name."""
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(line(duration=float("inf"))) + "\n", encoding="utf-8")
    ((_, _, found),) = read_results([path])
    assert isinstance(found, BadDocument)
    assert "duration" in str(found)


def test_empty_is_not_zero(tmp_path: Path) -> None:
    """0 ms of no request is refused."""
    zeros = {name: 0.0 for name in line() if name.endswith("_ms")}
    one = read_one(write_json(tmp_path / "s.json", line(completed=0, **zeros)))
    assert stated(one.reported, "ttft_s", "p50") is None
    assert set(zeros) <= set(refused(one))


@pytest.mark.parametrize(("backend", "itl"), [("sglang", 0.05), ("sglang-oai", None)])
def test_guessed_tokens(tmp_path: Path, backend: str, itl: float | None) -> None:
    """On OpenAI routes the gaps of guessed tokens are made up; on SGLang's own they are not."""
    one = read_one(write_json(tmp_path / "s.json", line(backend=backend, accept_length=2.4)))
    assert stated(one.reported, "itl_s", "p50") == itl
    assert stated(one.reported, "tpot_s", "p50") == pytest.approx(0.05)


def test_lengths_asked_for(tmp_path: Path) -> None:
    """Where text and count differ, the count may be what was asked for: that is said."""
    one = read_one(write_json(tmp_path / "s.json", line(total_output_tokens_retokenized=3)))
    assert "asked for" in refused(one)["total_output_tokens_retokenized"]


def test_steady_state(tmp_path: Path) -> None:
    """The interval of high concurrency is a measurement of its own."""
    value = {
        "window_start": 1.0,
        "window_end": 2.0,
        "duration": 1.0,
        "completed": 1,
        "output_throughput": 4.0,
        "average_concurrency": 1.9,
    }
    one = read_one(write_json(tmp_path / "s.json", value))
    assert (one.layout, stated(one.reported, "output_tokens_per_s")) == ("steady state", 4.0)


def test_llm_optimizer(tmp_path: Path) -> None:
    """Settings of the server are the operating point; a setting without results says so."""
    about = {"gpu_type": "h100", "gpu_count": 2, "model_tag": "some/model"}
    config = {"client_args": {"max_concurrency": 2}, "server_args": {"tp_size": 2}}
    rows: list[Any] = [
        {"config": config, "results": results, "cmd": "…", "constraints": [], "metadata": about}
        for results in (line(), None)
    ]
    ((_, _, found),) = read_results([write_lines(tmp_path / "o.jsonl", rows)])
    assert not isinstance(found, BadDocument), found
    first, second = found
    assert (first.hardware, first.device_count, first.model) == ("h100", 2, "some/model")
    assert first.operating_point == {"concurrency": 2, "rate_per_s": 4.0, "tp_size": 2}
    assert stated(first.reported, "output_tokens_per_s") == 3.0
    assert second.reported == ()
    assert "did not run" in refused(second)["results"]
