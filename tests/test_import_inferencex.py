"""InferenceX's files: joined by name, per GPU made total, power by its own rules of validity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import called
from result_files import imported, shown, vllm_details, vllm_result, write_json, write_lines

from wattbench.core.run import stated
from wattbench.interchange.results import BadDocument, Measurement, read_results

START_S = 1_790_000_000.0
SUMS = {"completed": 10, "total_input_tokens": 8000, "total_output_tokens": 1000}


def agg(**changes: Any) -> dict[str, Any]:
    """Four GPUs at 500 W each for 20 s: 40 kJ over 1000 output tokens."""
    value: dict[str, Any] = {
        "hw": "b200",
        "conc": 4,
        "image": "engine:1",
        "model": "some/model",
        "framework": "sglang",
        "precision": "fp8",
        "spec_decoding": "mtp",
        "disagg": False,
        "isl": 800,
        "osl": 100,
        "is_multinode": False,
        "tp": 4,
        "ep": 1,
        "dp_attention": "false",
        "tput_per_gpu": 112.5,
        "output_tput_per_gpu": 12.5,
        "input_tput_per_gpu": 100.0,
        "mean_ttft": 0.2,
        "median_ttft": 0.1,
        "std_ttft": 0.05,
        "p99_ttft": 0.9,
        "median_tpot": 0.02,
        "p99_tpot": 0.1,
        "median_intvty": 50.0,
        "mean_intvty": 40.0,
        "p99_intvty": 10.0,
        "std_intvty": 33.0,
        "power_metric_schema_version": 2,
        "power_valid": 1,
        "avg_power_w": 500.0,
        "avg_total_gpu_power_w": 2000.0,
        "total_gpu_energy_j": 40000.0,
        "joules_per_successful_query": 4000.0,
        "joules_per_input_token": 5.0,
        "joules_per_output_token": 40.0,
        "joules_per_total_token": 4.444444,
    }
    return {name: each for name, each in (value | changes).items() if each is not None}


def sidecar(**changes: Any) -> dict[str, Any]:
    """The power validation that belongs to ``agg``."""
    value: dict[str, Any] = {
        "schema_version": 1,
        "power_valid": 1,
        "reasons": [],
        "benchmark_window": {
            "start_time_unix": START_S,
            "end_time_unix": START_S + 20.0,
            "reported_duration_s": 20.0,
            "integration_duration_s": 20.0,
            **SUMS,
        },
        "integration_method": "trapezoid",
        "per_gpu_energy_j": {str(index): 10000.0 for index in range(4)},
        "metrics": {"total_gpu_energy_j": 40000.0, "avg_total_gpu_power_w": 2000.0},
    }
    return value | changes


def read_one(path: Path) -> Measurement:
    """The only measurement of a folder or file."""
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    ((_, name, found),) = read_results(paths)
    assert name == "inferencex"
    assert not isinstance(found, BadDocument)
    (one,) = found
    return one


def fates(one: Measurement, fate: str) -> dict[str, str]:
    """Why, of each field of a fate."""
    return {note.field: note.why for note in one.notes if note.fate == fate}


def test_agg_and_sidecar_are_one_run(tmp_path: Path) -> None:
    """Counts and window of the sidecar, figures of the other file: one aligned run with energy."""
    write_json(tmp_path / "in" / "agg_one.json", agg())
    write_json(tmp_path / "in" / "power_validation_one.json", sidecar())
    found = imported(tmp_path / "db", tmp_path / "in")["imports"]
    ((run,),) = [one["runs"] for one in found]
    assert (run["layout"], run["alignment"]) == ("agg", "aligned")
    assert run["operating_point"] == {"concurrency": 4}
    (point,) = shown(tmp_path / "db")
    metrics = point["metrics"]
    assert metrics["energy_per_output_token_joules"]["value"] == pytest.approx(40.0)
    assert metrics["energy_per_total_token_joules"]["value"] == pytest.approx(40000 / 9000)
    assert metrics["energy_per_request_joules"]["value"] == pytest.approx(4000.0)
    assert metrics["mean_power_watts"]["value"] == pytest.approx(2000.0)
    assert metrics["output_tokens_per_s"]["value"] == pytest.approx(50.0)
    assert metrics["ttft_s"]["p50"]["value"] == pytest.approx(0.1)
    assert metrics["interactivity_tokens_per_s_per_user"]["value"] == pytest.approx(50.0)
    assert {f["code"] for f in point["findings"]} >= {"reported_energy", "reported_only"}


def test_boundary_mode_and_machine(tmp_path: Path) -> None:
    """Joules are of boards; what the file says about the machine stands in its place."""
    one = read_one(write_json(tmp_path / "agg_one.json", agg()))
    assert (one.boundary, one.hardware, one.engine) == ("board", "b200", "sglang")
    assert (one.mode.precision, one.mode.speculative, one.device_count) == ("fp8", "mtp", 4)
    assert one.clock is None
    assert stated(one.reported, "energy_joules") == 40000.0
    assert stated(one.reported, "energy_duration_s") == pytest.approx(20.0)


def test_interactivity(tmp_path: Path) -> None:
    """The p99 is the slow tail, and neither a mean nor a deviation can be inverted."""
    one = read_one(write_json(tmp_path / "agg_one.json", agg()))
    name = "interactivity_tokens_per_s_per_user"
    assert stated(one.reported, name) == 50.0
    assert stated(one.reported, name, "p1") == 10.0
    assert stated(one.reported, name, "p99") is None
    assert "no meaning" in fates(one, "refused")["std_intvty"]
    assert "mean_intvty" in fates(one, "refused")


def test_per_gpu_becomes_total(tmp_path: Path) -> None:
    """By tp, pp and pcp; the total counts prompt tokens and is named so."""
    one = read_one(write_json(tmp_path / "agg_one.json", agg(tp=2, pp=2, pcp_size=2)))
    assert stated(one.reported, "output_tokens_per_s") == pytest.approx(12.5 * 8)
    assert stated(one.reported, "total_tokens_per_s") == pytest.approx(112.5 * 8)
    assert "prompt tokens count" in fates(one, "converted")["tput_per_gpu"]


@pytest.mark.parametrize(("decode", "output_count"), [(8, 8), (0, 4)])
def test_roles_apart(tmp_path: Path, decode: int, output_count: int) -> None:
    """Of several nodes answers are per decode GPU, of all if there is none."""
    value = agg(is_multinode=True, tp=None, ep=None, num_prefill_gpu=4, num_decode_gpu=decode)
    one = read_one(write_json(tmp_path / "agg_one.json", value))
    assert one.device_count == 4 + decode
    assert stated(one.reported, "output_tokens_per_s") == pytest.approx(12.5 * output_count)
    assert stated(one.reported, "input_tokens_per_s") == pytest.approx(100.0 * 4)
    assert stated(one.reported, "total_tokens_per_s") == pytest.approx(112.5 * (4 + decode))


def test_unknown_number_of_devices(tmp_path: Path) -> None:
    """A figure per GPU of an unknown number is refused."""
    one = read_one(write_json(tmp_path / "agg_one.json", agg(tp=None)))
    assert stated(one.reported, "output_tokens_per_s") is None
    assert "of how many" in fates(one, "refused")["output_tput_per_gpu"]


def test_invalid_power_is_refused_with_its_reasons(tmp_path: Path) -> None:
    """``power_valid`` 0: no joule, and the reasons of the sidecar are told."""
    absent = dict.fromkeys([name for name in agg() if "joules" in name or "_w" in name])
    value = agg(power_valid=0, total_gpu_energy_j=None, **absent)
    write_json(tmp_path / "agg_one.json", value)
    reasons = ["sampling_gap_exceeded", "benchmark_window_not_bracketed"]
    write_json(tmp_path / "power_validation_one.json", sidecar(power_valid=0, reasons=reasons))
    one = read_one(tmp_path)
    assert stated(one.reported, "energy_joules") is None
    assert one.boundary is None
    assert "sampling_gap_exceeded, benchmark_window" in fates(one, "refused")["power_valid"]
    assert stated(one.reported, "output_tokens_count") == 1000


@pytest.mark.parametrize("version", [None, 1])
def test_old_schemas_have_no_ratio(tmp_path: Path, version: int | None) -> None:
    """Joules of some roles over tokens of all are refused."""
    value = agg(power_metric_schema_version=version)
    one = read_one(write_json(tmp_path / "agg_one.json", value))
    assert stated(one.reported, "energy_per_output_token_joules") is None
    assert "old power schema" in fates(one, "refused")["joules_per_output_token"]


@pytest.mark.parametrize(
    ("changes", "side", "why"),
    [
        ({"power_metric_schema_version": 3}, {}, "version 3 is not known"),
        ({"power_valid": None}, {}, "power_valid is missing"),
        ({}, {"schema_version": 2}, "schema_version 2"),
        ({"joules_per_output_token": 41.0}, {}, "joules_per_output_token is 41.0"),
        ({"joules_per_output_token": 40.00001}, {}, "joules_per_output_token is 40.00001"),
        ({"avg_total_gpu_power_w": 2001.0}, {"metrics": {}}, "is not energy / duration"),
        ({}, {"metrics": {"total_gpu_energy_j": 40000.001}}, "in the power validation"),
        ({}, {"per_gpu_energy_j": {"0": 39000.0}}, "of all GPUs"),
        ({}, {"power_valid": 0, "reasons": ["telemetry_file_empty"]}, "telemetry_file_empty"),
    ],
)
def test_what_makes_power_unusable(
    tmp_path: Path, changes: dict[str, Any], side: dict[str, Any], why: str
) -> None:
    """Unknown schemas and figures that do not fit together cost all power figures."""
    write_json(tmp_path / "agg_one.json", agg(**changes))
    write_json(tmp_path / "power_validation_one.json", sidecar(**side))
    one = read_one(tmp_path)
    refused = fates(one, "refused")
    assert stated(one.reported, "energy_joules") is None
    assert stated(one.reported, "mean_power_watts") is None
    assert why in refused["total_gpu_energy_j"]
    assert "joules_per_output_token" in refused


def test_host_power_needs_its_own_gate(tmp_path: Path) -> None:
    """Energy of CPUs counts where InferenceX calls it valid, apart from that of GPUs."""
    value = agg(total_cpu_energy_j=900.0)
    one = read_one(write_json(tmp_path / "a" / "agg_one.json", value))
    assert stated(one.reported, "cpu_energy_joules") is None
    value = agg(total_cpu_energy_j=900.0, cpu_power_valid=1)
    one = read_one(write_json(tmp_path / "b" / "agg_one.json", value))
    assert stated(one.reported, "cpu_energy_joules") == 900.0
    assert stated(one.reported, "energy_joules") == 40000.0


def raw() -> dict[str, Any]:
    """What the client writes: vLLM's old keys and Unix times."""
    value = vllm_result() | {
        "benchmark_start_time_unix": START_S,
        "benchmark_end_time_unix": START_S + 2.0,
        "request_goodput:": 0.5,
    }
    del value["failed"]
    return value


def test_raw_is_on_unix_time(tmp_path: Path) -> None:
    """The window is absolute; the goodput is found under its odd key; the raw is not vLLM's."""
    path = write_json(tmp_path / "one.json", raw())
    (run,) = imported(tmp_path / "db", path)["imports"][0]["runs"]
    assert (run["tool"], run["layout"], run["alignment"]) == ("inferencex", "raw", "aligned")
    one = read_one(path)
    assert one.window_s == (START_S, START_S + 2.0)
    assert stated(one.reported, "goodput_requests_per_s") == 0.5
    assert stated(one.reported, "ttft_s", "p50") == pytest.approx(0.1)


def test_raw_requests_begin_with_the_window(tmp_path: Path) -> None:
    """Starts of an unknown origin are moved; without starts no request is placed."""
    path = write_json(tmp_path / "a" / "one.json", raw() | vllm_details())
    one = read_one(path)
    assert one.requests is not None
    assert [result.sent_s for result in one.requests()] == [START_S, START_S + 1.0]
    details = vllm_details()
    del details["start_times"]
    one = read_one(write_json(tmp_path / "b" / "one.json", raw() | details))
    assert one.requests is None
    assert "ttfts" in fates(one, "refused")


def test_raw_agg_and_sidecar_of_one_name(tmp_path: Path) -> None:
    """Three files are one run, each figure once; another name is another run."""
    write_json(tmp_path / "one.json", raw())
    write_json(tmp_path / "agg_one.json", agg())
    write_json(tmp_path / "power_validation_one.json", sidecar())
    write_json(tmp_path / "agg_two.json", agg(conc=8))
    ((documents, _, found),) = read_results(sorted(tmp_path.iterdir()))
    assert not isinstance(found, BadDocument)
    assert (len(documents), len(found)) == (4, 2)
    for one in found:
        figures = [(figure.metric, figure.statistic) for figure in one.reported]
        assert len(figures) == len(set(figures))


def test_a_sidecar_alone(tmp_path: Path) -> None:
    """Its counts, window and energy are enough for joules per token."""
    one = read_one(write_json(tmp_path / "power_validation_one.json", sidecar()))
    assert stated(one.reported, "energy_joules") == 40000.0
    assert stated(one.reported, "output_tokens_count") == 1000
    assert one.window_s == (START_S, START_S + 20.0)


def test_a_negative_energy_is_an_error(tmp_path: Path) -> None:
    """No board gives energy back."""
    path = write_json(tmp_path / "agg_one.json", agg(total_gpu_energy_j=-1.0))
    ((_, _, found),) = read_results([path])
    assert isinstance(found, BadDocument)
    assert "total_gpu_energy_j is -1.0" in str(found)


def test_a_window_backwards_is_an_error(tmp_path: Path) -> None:
    """The message names file and field."""
    value = raw() | {"benchmark_end_time_unix": START_S - 1.0}
    ((_, _, found),) = read_results([write_json(tmp_path / "one.json", value)])
    assert isinstance(found, BadDocument)
    assert "benchmark_end_time_unix" in str(found)


@pytest.mark.parametrize("form", ["list", "lines"])
def test_rows_are_runs(tmp_path: Path, form: str) -> None:
    """Flat rows and rows of the API, as a list or one per line."""
    names = ("tput_per_gpu", "output_tput_per_gpu", "median_intvty", "median_ttft")
    nested = {
        "hardware": "b200",
        "framework": "sglang",
        "model": "dsr1",
        "precision": "fp4",
        "spec_method": "none",
        "disagg": False,
        "is_multinode": False,
        "prefill_tp": 8,
        "decode_tp": 8,
        "num_prefill_gpu": 8,
        "num_decode_gpu": 8,
        "conc": 16,
        "isl": 8192,
        "osl": 1024,
        "metrics": {name: agg()[name] for name in names},
    }
    rows = [agg(), nested]
    write = write_json if form == "list" else write_lines
    ((_, _, found),) = read_results([write(tmp_path / "rows.json", rows)])
    assert not isinstance(found, BadDocument)
    assert [one.layout for one in found] == ["agg", "row"]
    assert found[1].device_count == 8
    assert stated(found[1].reported, "output_tokens_per_s") == pytest.approx(100.0)
    assert stated(found[1].reported, "energy_joules") is None


def test_empty_samples(tmp_path: Path) -> None:
    """0 s of nothing is no latency."""
    one = read_one(write_json(tmp_path / "agg_one.json", agg(median_ttft=0.0, median_intvty=0.0)))
    assert stated(one.reported, "ttft_s", "p50") is None
    assert stated(one.reported, "interactivity_tokens_per_s_per_user") is None


def audited(folder: Path, **side: Any) -> str:
    """What the audit of a run of four GPUs with such a power validation finds."""
    write_json(folder / "agg_one.json", agg())
    write_json(folder / "power_validation_one.json", sidecar(**side))
    done = called("audit", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    (load,) = json.loads(done.stdout)["loads"]
    return "; ".join(f"{f['code']} {f['message']}" for f in load["findings"])


@pytest.mark.parametrize(
    ("side", "told"),
    [
        ({"observed_gpu_count": 8, "expected_gpu_count": 8}, "of 8 GPUs"),
        ({"observed_gpu_count": 4, "expected_gpu_count": 8}, "8 were expected"),
        ({"per_gpu_energy_j": {str(index): 5000.0 for index in range(8)}}, "of 8 GPUs"),
        ({"accumulator_check": {"available": True, "within_tolerance": False}}, "counters"),
        (
            {
                "accumulator_check": {
                    "available": True,
                    "accumulator_delta_j": 44000.0,
                    "integrated_stream_j": 40000.0,
                    "within_tolerance": None,
                }
            },
            "44000 J and the samples 40000 J, 10.0% apart",
        ),
    ],
)
def test_an_audit_names_what_the_power_validation_refutes(
    tmp_path: Path, side: dict[str, Any], told: str
) -> None:
    """Other GPUs than those of the run, or counters that the samples contradict."""
    found = audited(tmp_path, **side)
    assert "energy_refused" in found
    assert told in found


def test_a_power_validation_that_agrees_is_clean(tmp_path: Path) -> None:
    """Four GPUs of four, and counters within the tolerance; or no counters at all."""
    check = {
        "available": True,
        "accumulator_delta_j": 41000.0,
        "integrated_stream_j": 40000.0,
        "relative_error": 0.025,
        "within_tolerance": True,
        "tolerance": 0.05,
    }
    counts = {"observed_gpu_count": 4, "expected_gpu_count": 4}
    assert audited(tmp_path, accumulator_check=check, **counts) == ""
    absent = {"available": False, "within_tolerance": False}
    assert audited(tmp_path, accumulator_check=absent, **counts) == ""


def test_an_audit_names_the_files_of_each_load(tmp_path: Path) -> None:
    """Of a folder with two runs, each is of its own files."""
    for users, name in ((4, "one"), (8, "two")):
        write_json(tmp_path / f"agg_{name}.json", agg(conc=users))
        write_json(tmp_path / f"power_validation_{name}.json", sidecar())
    done = called("audit", str(tmp_path), "--json")
    assert [load["files"] for load in json.loads(done.stdout)["loads"]] == [
        [str(tmp_path / f"{kind}_{name}.json") for kind in ("agg", "power_validation")]
        for name in ("one", "two")
    ]
