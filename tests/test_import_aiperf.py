"""AIPerf's files: one run of a folder, its units as it tells them, and what it does not know."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from command import called
from peer_files import (
    START_S,
    aiperf_record,
    aiperf_totals,
    block,
    energy,
    failed_record,
)
from result_files import imported, shown, write_json, write_lines

import wattbench
from wattbench.core.run import stated
from wattbench.interchange.results import Measurement, read_results


def measured(*paths: Path) -> Measurement:
    """The only measurement of files."""
    ((_, name, found),) = read_results(paths)
    assert name == "aiperf"
    assert isinstance(found, list), found
    (one,) = found
    return one


def folder(
    place: Path, totals: dict[str, Any] | None, records: list[dict[str, Any]] | None
) -> list[Path]:
    """The files of one run."""
    paths = []
    if totals is not None:
        paths.append(write_json(place / "profile_export_aiperf.json", totals))
    if records is not None:
        paths.append(write_lines(place / "profile_export.jsonl", records))
    return paths


def notes(found: Measurement, field: str) -> str:
    """Why a field was converted or refused."""
    return " ".join(note.why for note in found.notes if note.field == field)


def test_a_folder_is_one_run(tmp_path: Path) -> None:
    """Totals and records meet; latencies follow from the records, on Unix time."""
    folder(tmp_path / "a", aiperf_totals(), [aiperf_record(0), aiperf_record(1)])
    (one,) = imported(tmp_path / "db", tmp_path / "a")["imports"]
    (run,) = one["runs"]
    assert (run["layout"], run["alignment"]) == ("totals+records", "aligned")
    assert (run["tool_version"], run["operating_point"]) == ("0.13.0", {"concurrency": 2})
    (point,) = shown(tmp_path / "db")
    requests = wattbench.load(tmp_path / "db").requests
    assert requests.ttft_s.tolist() == pytest.approx([0.1, 0.1], abs=1e-6)
    assert requests.tpot_s.tolist() == pytest.approx([0.05, 0.05], abs=1e-6)
    assert requests.e2e_s.tolist() == pytest.approx([0.2, 0.2], abs=1e-6)
    assert point["window"]["start_unix_s"] == pytest.approx(START_S, abs=1e-6)
    assert point["window"]["duration_s"] == pytest.approx(1.2, abs=1e-6)


@pytest.mark.parametrize("which", ["totals", "records"])
def test_either_file_alone(tmp_path: Path, which: str) -> None:
    """The totals tell figures, the records tell requests and a window."""
    totals = aiperf_totals() if which == "totals" else None
    records = [aiperf_record(0), aiperf_record(1)] if which == "records" else None
    found = measured(*folder(tmp_path, totals, records))
    assert found.layout == which
    assert stated(found.reported, "completed_count") == 2
    assert stated(found.reported, "output_tokens_count") == 6
    assert (found.requests is None, found.clock) == (
        which == "totals",
        "unix" * bool(records) or None,
    )
    if which == "records":
        assert "records.request_latency" in {n.field for n in found.notes if n.fate == "taken"}
    if which == "totals":
        assert stated(found.reported, "ttft_s", "p50") == pytest.approx(0.1)
        assert stated(found.reported, "tpot_s", "p99") == pytest.approx(0.05)
        assert stated(found.reported, "e2e_s", "sd") == 0.0
        assert stated(
            found.reported, "interactivity_tokens_per_s_per_user", "mean"
        ) == pytest.approx(20.0)
        assert "without a zone" in notes(found, "start_time")


def test_the_unit_of_each_block_is_trusted(tmp_path: Path) -> None:
    """Seconds, milliseconds and nanoseconds; an unknown unit is refused and named."""
    totals = aiperf_totals(
        time_to_first_token=block("sec", 0.1),
        request_latency=block("ns", 2e8),
        inter_token_latency=block("fortnights", 1.0),
    )
    found = measured(*folder(tmp_path, totals, None))
    assert stated(found.reported, "ttft_s", "p50") == pytest.approx(0.1)
    assert stated(found.reported, "e2e_s", "p50") == pytest.approx(0.2)
    assert stated(found.reported, "tpot_s", "p50") is None
    assert "fortnights" in notes(found, "inter_token_latency")
    record = aiperf_record(time_to_first_token={"value": 1.0, "unit": "fortnights"})
    (bad,) = read_results([write_lines(tmp_path / "b" / "x.jsonl", [record, record])])
    assert "fortnights" in str(bad[2])


def test_energy_is_of_the_boards_and_in_joules(tmp_path: Path) -> None:
    """Millijoules become joules; the boundary is told, and that the window is the counter's own."""
    found = measured(*folder(tmp_path / "a", aiperf_totals(**energy()), None))
    assert stated(found.reported, "energy_joules") == 60.0
    assert stated(found.reported, "mean_power_watts") == 30.0
    assert stated(found.reported, "energy_per_output_token_joules") == pytest.approx(10.0)
    assert (found.boundary, found.hardware, found.device_count) == ("board", "Some GPU", 1)
    assert "after the last request" in found.energy_method
    imported(tmp_path / "db", tmp_path / "a")
    (point,) = shown(tmp_path / "db")
    per_token = point["metrics"]["energy_per_output_token_joules"]
    assert per_token["value"] == pytest.approx(10.0)


def test_without_energy_there_is_no_boundary(tmp_path: Path) -> None:
    """No telemetry is no joule; of two vendors none is taken for the whole."""
    found = measured(*folder(tmp_path / "a", aiperf_totals(), None))
    assert (stated(found.reported, "energy_joules"), found.boundary) == (None, None)
    both = aiperf_totals(
        **energy("nvidia"), **{k: v for k, v in energy("amd").items() if "amd" in k}
    )
    found = measured(*folder(tmp_path / "b", both, None))
    assert (stated(found.reported, "energy_joules"), found.boundary) == (None, None)
    assert "two vendors" in notes(found, "amd_total_gpu_energy")


def test_only_profiling_is_measured(tmp_path: Path) -> None:
    """Warm-up is marked by its phase, and lies outside of the window."""
    records = [aiperf_record(0, phase="warmup"), aiperf_record(5), aiperf_record(6)]
    found = measured(*folder(tmp_path, None, records))
    assert found.requests is not None
    assert [r.phase for r in found.requests()] == ["warmup", "measured", "measured"]
    assert found.window_s == pytest.approx((START_S + 5, START_S + 6.2), abs=1e-6)
    assert stated(found.reported, "completed_count") == 2


def test_only_warm_up_is_refused(tmp_path: Path) -> None:
    """Nothing measured is an error that says so."""
    paths = folder(tmp_path, None, [aiperf_record(i, phase="warmup") for i in (0, 1)])
    (bad,) = read_results(paths)
    assert "profiling" in str(bad[2])


def test_an_error_is_a_failure(tmp_path: Path) -> None:
    """With class and text; a cancelled request as well."""
    cancelled = aiperf_record(2)
    cancelled["metadata"]["was_cancelled"] = True
    found = measured(*folder(tmp_path, None, [aiperf_record(0), failed_record(1), cancelled]))
    assert found.requests is not None
    good, refused, ended = found.requests()
    assert good.succeeded
    assert (refused.error_class, refused.error_text) == ("ServiceUnavailable", "no slot is free")
    assert (refused.output_tokens, ended.error_class) == (None, "Cancelled")
    assert (stated(found.reported, "completed_count"), stated(found.reported, "failed_count")) == (
        1,
        2,
    )


def test_without_streaming_ttft_is_unknown(tmp_path: Path) -> None:
    """No TTFT and no TPOT, and neither is zero; E2E and throughput stand."""
    plain: dict[str, Any] = {"time_to_first_token": None, "inter_chunk_latency": None}
    totals = aiperf_totals(**plain, inter_token_latency=None)
    folder(tmp_path / "a", totals, [aiperf_record(i, **plain) for i in (0, 1)])
    imported(tmp_path / "db", tmp_path / "a")
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["ttft_s"]["p50"]["value"] is None
    assert point["metrics"]["tpot_s"]["p50"]["value"] is None
    assert point["metrics"]["e2e_s"]["p50"]["value"] == pytest.approx(0.2)
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(3.0)
    assert point["requests"] == {"completed": 2, "failed": 0}


def test_gaps_that_are_not_listed_are_spread(tmp_path: Path) -> None:
    """TTFT, TPOT and E2E follow exactly, and it is said that a gap is a mean."""
    mean = {"value": 50.0, "unit": "ms"}
    records = [
        aiperf_record(0, inter_chunk_latency=mean),
        aiperf_record(1, inter_chunk_latency=None),
    ]
    found = measured(*folder(tmp_path, None, records))
    assert found.requests is not None
    for index, result in enumerate(found.requests()):
        at_s = [START_S + index + later_s for later_s in (0.1, 0.15, 0.2)]
        assert result.chunk_s.tolist() == pytest.approx(at_s, abs=1e-6)
    assert "mean gap" in notes(found, "inter_chunk_latency")


def test_listed_gaps_show_a_stall(tmp_path: Path) -> None:
    """Chunks stand where they came, not at their mean; a chunk may bundle tokens."""
    gaps = {"value": [10.0, 90.0], "unit": "ms"}
    tokens = {"value": 6, "unit": "tokens"}
    record = aiperf_record(inter_chunk_latency=gaps, usage_completion_tokens=tokens)
    found = measured(*folder(tmp_path, None, [record, record]))
    assert found.requests is not None
    result = next(found.requests())
    assert (result.chunk_s - START_S).tolist() == pytest.approx([0.1, 0.11, 0.2], abs=1e-6)
    assert (result.output_tokens, result.tokens_source) == (6, "usage")


def test_the_server_counts_before_the_tokenizer(tmp_path: Path) -> None:
    """Without usage AIPerf tokenises the text itself: taken, but not as the server's word."""
    own = aiperf_record(usage_completion_tokens=None)
    found = measured(*folder(tmp_path, None, [own, own]))
    assert found.requests is not None
    result = next(found.requests())
    assert (result.output_tokens, result.tokens_source) == (3, None)
    assert "tokenised" in notes(found, "output_sequence_length")


def test_waiting_for_a_slot_counts_in_an_open_loop(tmp_path: Path) -> None:
    """A load by rate wanted to send when the credit was issued; users of a closed loop did not."""
    phases = [{"kind": "profiling", "type": "poisson", "rate": 2.0}]
    for config, waited_s in ((None, 0.0), ({"phases": phases}, 0.5)):
        totals = aiperf_totals(**({"input_config": config} if config else {}))
        found = measured(*folder(tmp_path / str(waited_s), totals, [aiperf_record()] * 2))
        assert found.requests is not None
        result = next(found.requests())
        assert result.sent_s - result.queued_s == pytest.approx(waited_s, abs=1e-6)


def test_old_settings_and_a_zone(tmp_path: Path) -> None:
    """Flags of an old release; a start with a zone places the totals in time."""
    config = {"endpoint": {"model_names": ["m"]}, "loadgen": {"concurrency": 8}}
    times = {"start_time": "2026-09-21T12:00:00+02:00", "end_time": "2026-09-21T10:00:02Z"}
    old = {
        "total_isl": None,
        "total_osl": None,
        "input_sequence_length": {"unit": "tokens", "sum": 20},
    }
    found = measured(*folder(tmp_path, aiperf_totals(input_config=config, **times, **old), None))
    assert (found.model, found.operating_point) == ("m", {"concurrency": 8})
    assert found.window_s is not None
    assert found.window_s[1] - found.window_s[0] == 2.0
    assert stated(found.reported, "input_tokens_count") == 20


def test_an_empty_sample_is_unknown(tmp_path: Path) -> None:
    """Statistics of nothing are refused."""
    found = measured(
        *folder(tmp_path, aiperf_totals(time_to_first_token=block("ms", 0.0, count=0)), None)
    )
    assert stated(found.reported, "ttft_s", "p50") is None
    assert "empty" in notes(found, "time_to_first_token")


def test_several_runs_of_a_folder_are_told_apart_by_name(tmp_path: Path) -> None:
    """A prefix of the user's own pairs the files."""
    for name in ("a", "b"):
        write_json(tmp_path / f"{name}_aiperf.json", aiperf_totals(benchmark_id=name))
        write_lines(tmp_path / f"{name}.jsonl", [aiperf_record(0), aiperf_record(1)])
    ((_, _, found),) = read_results(sorted(tmp_path.iterdir()))
    assert isinstance(found, list)
    assert [one.layout for one in found] == ["totals+records"] * 2


def test_what_lies_beside_is_no_run(tmp_path: Path) -> None:
    """Prompts, phases and server metrics are known; the totals of a phase are not counted again."""
    folder(tmp_path / "a", aiperf_totals(), [aiperf_record(0), aiperf_record(1)])
    beside = {
        "inputs.json": {"data": [{"session_id": "s", "payloads": []}]},
        "phase_manifest.json": {"schema_version": 1, "phases": [{"metrics_json": "x"}]},
        "phases/warmup/profile_export_aiperf.json": aiperf_totals(),
        "phases/warmup/server_metrics.json": {"data": {}, "phase": "warmup", "schema_version": 1},
        "server_metrics_export.json": {"aiperf_version": "0.13.0", "metrics": {}},
    }
    for name, value in beside.items():
        write_json(tmp_path / "a" / name, value)
    (tmp_path / "a" / "profile_export_aiperf.csv").write_text("Metric,avg,min,max\nx,1,1,1\n")
    found = imported(tmp_path / "db", tmp_path / "a")["imports"]
    assert [len(one["runs"]) for one in found if one["runs"]] == [1]
    assert len(found) == 7
    first = found[-1]["runs"][0]["run_id"]
    again = imported(
        tmp_path / "db",
        *folder(tmp_path / "b", aiperf_totals(), [aiperf_record(0), aiperf_record(1)]),
    )
    assert again["imports"][0]["runs"][0]["run_id"] == first


def test_an_aggregate_of_runs_names_the_files_to_give(tmp_path: Path) -> None:
    """Means over runs have no totals: alone they are refused, beside their runs passed over."""
    aggregate = {
        "schema_version": "1.0",
        "aiperf_version": "0.13.0",
        "metadata": {"aggregation_type": "confidence", "num_profile_runs": 2},
        "metrics": {"request_latency_avg": {"mean": 200.0, "std": 1.0, "unit": "ms"}},
    }
    alone = write_json(tmp_path / "x" / "aggregate.json", aggregate)
    found = imported(tmp_path / "db", alone, exit_code=1)["imports"][0]
    assert "profile_runs/" in found["error"]
    path = write_json(tmp_path / "a" / "aggregate" / "aggregate.json", aggregate)
    for name in ("run_0001", "run_0002"):
        folder(tmp_path / "a" / "profile_runs" / name, aiperf_totals(), [aiperf_record(0)])
    found = imported(tmp_path / "db", tmp_path / "a")["imports"]
    assert sum(len(one["runs"]) for one in found) == 2
    said = called("import", str(path), "--db", str(tmp_path / "db"))
    assert said.returncode == 1
    assert "nothing was imported" in said.stderr


def test_records_are_read_anew_in_bounded_memory(tmp_path: Path) -> None:
    """Neither a pass for the window nor one for the requests keeps what it read."""
    path = tmp_path / "profile_export.jsonl"
    with path.open("w") as file:
        for index in range(6000):
            file.write(json.dumps(aiperf_record(index)) + "\n")
    tracemalloc.start()
    try:
        found = measured(path)
        assert found.requests is not None
        assert sum(1 for _ in found.requests()) == 6000
        assert sum(r.succeeded for r in found.requests()) == 6000
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 3_500_000
    assert peak_bytes < 2_500_000


HOSTILE: dict[str, dict[str, Any]] = {
    "no start": {"metadata": {"request_start_ns": None, "benchmark_phase": "profiling"}},
    "a text for a time": {"metadata": {"request_start_ns": "now"}},
    "backwards": {"metadata": {"request_start_ns": 2, "request_end_ns": 1}},
    "a negative gap": aiperf_record(inter_chunk_latency={"value": [-1.0], "unit": "ms"}),
    "an endless answer": aiperf_record(usage_completion_tokens={"value": 10**12, "unit": "tokens"}),
    "a text for a number": aiperf_record(request_latency={"value": "fast", "unit": "ms"}),
    "a list for an object": aiperf_record() | {"metrics": [1]},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_bad_record_is_named(tmp_path: Path, kind: str) -> None:
    """One sentence with file and line."""
    path = write_lines(tmp_path / "x.jsonl", [aiperf_record(), aiperf_record() | HOSTILE[kind]])
    (bad,) = read_results([path])
    assert f"{path}, line 2" in str(bad[2])
