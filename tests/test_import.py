"""``wattbench import``: vLLM's files, what hurts in files of any kind, and what the store keeps."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from command import called
from result_files import imported, shown, vllm_details, vllm_result, write_json, write_lines

from wattbench.cli.main import cli
from wattbench.core.errors import StoreError
from wattbench.store import (
    ImportedLoad,
    add_imported,
    connect,
    database_url,
    document_content,
    load_run,
)


def test_totals_become_metrics_with_a_reason(tmp_path: Path) -> None:
    """Milliseconds become seconds; what vLLM computed stands, without interval, and is doubted."""
    path = write_json(tmp_path / "vllm.json", vllm_result())
    found = imported(tmp_path / "db", path)["imports"][0]
    assert (found["format"], found["error"]) == ("vllm-bench", None)
    (run,) = found["runs"]
    assert (run["layout"], run["alignment"], run["new"]) == ("aggregate", "unaligned", True)
    assert {"fate": "converted", "field": "mean_ttft_ms", "why": "times 0.001"} in run["notes"]
    assert {"fate": "kept", "field": "num_prompts", "why": ""} in run["notes"]
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["ttft_s"]["p50"]["value"] == pytest.approx(0.1)
    assert point["metrics"]["ttft_s"]["p50"]["reason"] == "reported_without_interval"
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(3.0)
    assert point["metrics"]["energy_per_output_token_joules"]["value"] is None
    assert point["verdict"] == {"performance": "doubtful", "energy": "invalid"}
    assert point["requests"] == {"completed": 2, "failed": 0}


def test_detail_becomes_requests(tmp_path: Path) -> None:
    """TTFT, TPOT and E2E follow from the lists, on the monotonic clock of the host."""
    path = write_json(tmp_path / "vllm.json", vllm_result() | vllm_details())
    (run,) = imported(tmp_path / "db", path)["imports"][0]["runs"]
    assert run["layout"] == "detailed"
    assert run["has_requests"]
    (point,) = shown(tmp_path / "db")
    assert point["requests"] == {"completed": 2, "failed": 0}
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(3.0)
    assert point["window"]["duration_s"] == pytest.approx(2.0)


def test_failed_requests_are_no_zeros(tmp_path: Path) -> None:
    """A request that vLLM writes as TTFT 0 with a text is a failure, not a fast answer."""
    details = vllm_details()
    details["ttfts"][1], details["output_lens"][1], details["itls"][1] = 0.0, 0, []
    details["errors"][1] = "HTTP 500"
    path = write_json(tmp_path / "vllm.json", vllm_result(completed=1, failed=1) | details)
    imported(tmp_path / "db", path)
    (point,) = shown(tmp_path / "db")
    assert point["requests"] == {"completed": 1, "failed": 1}
    assert "requests_failed" in {finding["code"] for finding in point["findings"]}


def test_an_empty_sample_is_unknown(tmp_path: Path) -> None:
    """0 ms of no request at all is refused."""
    empty = {name: 0.0 for name in vllm_result() if name.endswith("_ms")}
    path = write_json(tmp_path / "v.json", vllm_result(completed=0, total_output_tokens=0, **empty))
    (run,) = imported(tmp_path / "db", path)["imports"][0]["runs"]
    assert "refused" in {n["fate"] for n in run["notes"] if n["field"] == "median_ttft_ms"}
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["ttft_s"]["p50"]["value"] is None


def test_twice_is_once(tmp_path: Path) -> None:
    """The same content under another name is the same run."""
    first = write_json(tmp_path / "a" / "one.json", vllm_result())
    second = write_json(tmp_path / "b" / "two.json", vllm_result())
    assert imported(tmp_path / "db", first)["imports"][0]["runs"][0]["new"]
    assert not imported(tmp_path / "db", second)["imports"][0]["runs"][0]["new"]
    assert len(shown(tmp_path / "db", "backend=import")) == 1


def test_one_object_per_line_and_packed(tmp_path: Path) -> None:
    """``--append-result`` gives a run per line; gzip is unpacked on the way."""
    path = write_lines(tmp_path / "v.jsonl", [vllm_result(max_concurrency=n) for n in (1, 4)])
    packed = tmp_path / "v.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    found = imported(tmp_path / "db", packed)["imports"][0]
    assert [run["operating_point"] for run in found["runs"]] == [
        {"concurrency": 1},
        {"concurrency": 4},
    ]


def test_dry_run_stores_nothing(tmp_path: Path) -> None:
    """Everything is said and no database is made."""
    path = write_json(tmp_path / "vllm.json", vllm_result())
    assert imported(tmp_path / "db", path, "--dry-run")["imports"][0]["runs"]
    assert not (tmp_path / "db").exists()


HOSTILE = {
    "cut off": json.dumps(vllm_result())[:-30].encode(),
    "NaN": json.dumps(vllm_result(duration=float("nan"))).encode(),
    "1e400": json.dumps(vllm_result()).replace("100.0", "1e400").encode(),
    "nested": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "UTF-16": json.dumps(vllm_result()).encode("utf-16"),
    "empty": b"",
    "binary": bytes(range(256)) * 10,
    "foreign": b'{"hello": "world"}',
    "text": b"nothing to see\n",
    "bomb": gzip.compress(b'{"a": "' + b"0" * 50_000_000 + b'"}'),
    "half an archive": gzip.compress(json.dumps(vllm_result()).encode() * 50)[:-20],
    "huge integer": json.dumps(vllm_result(total_output_tokens=10**400)).encode(),
    "beyond measurement": json.dumps(vllm_result(duration=1e300)).encode(),
    "wrong type": json.dumps(vllm_result(duration="2")).encode(),
    "negative count": json.dumps(vllm_result(completed=-1)).encode(),
    "unlike lists": json.dumps(vllm_result() | vllm_details() | {"ttfts": [0.1]}).encode(),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_bad_file_costs_only_itself(tmp_path: Path, kind: str) -> None:
    """One sentence that names the file; the good one beside it is imported."""
    bad, good = tmp_path / "bad.json", write_json(tmp_path / "good" / "v.json", vllm_result())
    bad.write_bytes(HOSTILE[kind])
    found = imported(tmp_path / "db", bad, good, exit_code=1)
    errors = [one["error"] for one in found["imports"] if one["error"]]
    assert len(errors) == 1
    assert str(bad) in errors[0]
    assert len(errors[0]) < 600
    assert len(shown(tmp_path / "db")) == 1


def test_a_bad_file_alone_leaves_no_store(tmp_path: Path) -> None:
    """No database is made for nothing."""
    bad = tmp_path / "bad.json"
    bad.write_bytes(HOSTILE["cut off"])
    imported(tmp_path / "db", bad, exit_code=1)
    assert not (tmp_path / "db").exists()


def test_unknown_format_and_path(tmp_path: Path) -> None:
    """Bad usage names the nearest format, and the place where nothing is."""
    path = write_json(tmp_path / "vllm.json", vllm_result())
    result = CliRunner().invoke(cli, ["import", str(path), "--format", "vllm-bnch"])
    assert "vllm-bench" in str(result.exception)
    result = CliRunner().invoke(cli, ["import", str(tmp_path / "nowhere")])
    assert "nowhere" in str(result.exception)


def test_counts_that_no_file_tells_are_unknown(tmp_path: Path) -> None:
    """Without a count of failures there is none, not zero."""
    result = vllm_result()
    del result["failed"]
    imported(tmp_path / "db", write_json(tmp_path / "vllm.json", result))
    (point,) = shown(tmp_path / "db")
    assert point["requests"] == {"completed": 2, "failed": None}


def test_e2e_follows_from_the_list(tmp_path: Path) -> None:
    """VLLM leaves the block of E2E out by default, and writes the latency of each success."""
    result = vllm_result(latencies=[0.2, 0.4, 0.6, 0.0], completed=3)
    imported(tmp_path / "db", write_json(tmp_path / "vllm.json", result))
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["e2e_s"]["p50"]["value"] == pytest.approx(0.4)
    told = vllm_result(latencies=[0.2, 0.4, 0.6], median_e2el_ms=410.0)
    imported(tmp_path / "db2", write_json(tmp_path / "told.json", told))
    (point,) = shown(tmp_path / "db2")
    assert point["metrics"]["e2e_s"]["p50"]["value"] == pytest.approx(0.41)


def test_requests_without_a_start_are_not_placed(tmp_path: Path) -> None:
    """Old details tell no start: the totals stand, and no request is set at an instant."""
    details = vllm_details()
    del details["start_times"]
    path = write_json(tmp_path / "vllm.json", vllm_result() | details)
    (run,) = imported(tmp_path / "db", path)["imports"][0]["runs"]
    assert not run["has_requests"]
    assert "no start" in next(n["why"] for n in run["notes"] if n["field"] == "ttfts")
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(3.0)


def test_a_bad_file_beside_a_good_one_of_its_tool(tmp_path: Path) -> None:
    """Files of one tool in one folder are read together, and still each by its own."""
    write_json(tmp_path / "in" / "a.json", vllm_result())
    write_json(tmp_path / "in" / "b.json", vllm_result(duration=True))
    write_json(tmp_path / "in" / "c.json", vllm_result(max_concurrency=7))
    found = imported(tmp_path / "db", tmp_path / "in", exit_code=1)["imports"]
    assert [one["error"] is None for one in found] == [False, True]
    assert "b.json" in found[0]["error"]
    assert len(found[1]["runs"]) == 2


def test_every_error_is_said(tmp_path: Path) -> None:
    """Not the first alone."""
    for name in ("a", "b", "c"):
        write_json(tmp_path / "in" / f"{name}.json", {"hello": name})
    words = ["import", str(tmp_path / "in"), "--db", str(tmp_path / "db")]
    result = CliRunner().invoke(cli, words)
    said = result.stderr + str(result.exception)
    assert all(f"{name}.json" in said for name in ("a", "b", "c"))


@pytest.mark.parametrize("names", [("in/a.json", "in/b.json"), ("a/v.json", "b/v.json")])
def test_a_copy_is_the_same_load(tmp_path: Path, names: tuple[str, str]) -> None:
    """Of two files with the same bytes the first is new, and the second is there already."""
    for name in names:
        write_json(tmp_path / "all" / name, vllm_result())
    words = ["import", str(tmp_path / "all"), "--db", str(tmp_path / "db"), "--dry-run"]
    said = CliRunner().invoke(cli, words).stdout
    assert (said.count("would be new"), said.count("there already")) == (1, 1)
    found = imported(tmp_path / "db", tmp_path / "all")["imports"]
    runs = [run for one in found for run in one["runs"]]
    assert [run["new"] for run in runs] == [True, False]
    assert len({run["run_id"] for run in runs}) == 1
    alone = imported(tmp_path / "db", tmp_path / "all" / names[1])["imports"][0]["runs"]
    assert alone[0]["new"] is False


@pytest.mark.parametrize("command", ["import", "audit"])
def test_json_has_the_errors_or_is_not_there(tmp_path: Path, command: str) -> None:
    """Files that cannot be read stand in it; bad usage prints nothing on standard output."""
    good, bad = write_json(tmp_path / "v.json", vllm_result()), tmp_path / "bad.json"
    bad.write_bytes(HOSTILE["cut off"])
    where = ("--db", str(tmp_path / "db"), "--json")
    done = called(command, str(good), str(bad), *where)
    assert done.returncode == 1
    (error,) = json.loads(done.stdout)["errors"]
    assert str(bad) in error
    assert done.stderr.count("Error:") == 1
    done = called(command, str(tmp_path / "nowhere"), *where)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("Error:") == 1


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    """Nothing is not a success."""
    (tmp_path / "in").mkdir()
    result = CliRunner().invoke(cli, ["import", str(tmp_path / "in")])
    assert "no file" in str(result.exception)


@pytest.mark.parametrize("form", ["json", "lines", "gz"])
def test_keys_that_a_tool_repeats_are_not_kept(tmp_path: Path, form: str) -> None:
    """Command line, headers and extra inputs stay out of the store; the rest of the file is in."""
    more = {"cli_command": "x -H 'X: sk-1'", "in": {"headers": ["sk-2"], "extra": {"t": "sk-3"}}}
    results = [vllm_result(**more), vllm_result(**more, max_concurrency=5)]
    path = write_lines(tmp_path / "v.jsonl", results if form == "lines" else results[:1])
    if form == "gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    (one, *_) = imported(tmp_path / "db", path)["imports"][0]["runs"]
    engine = connect(database_url(str(tmp_path / "db")), create=False)
    backend = load_run(engine, one["run_id"]).record.backend
    files = backend["files"]
    assert isinstance(files, list)
    assert isinstance(files[0], dict)
    content = document_content(engine, str(files[0]["sha256"]))
    engine.dispose()
    assert b"sk-" not in content
    assert content.count(b"some/model") == (2 if form == "lines" else 1)


def test_percentiles_that_requests_do_not_carry_stay_withheld(tmp_path: Path) -> None:
    """The tool's own p99 of two requests is not shown as if it were one."""
    imported(tmp_path / "db", write_json(tmp_path / "v.json", vllm_result() | vllm_details()))
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["ttft_s"]["p99"]["value"] is None
    assert point["metrics"]["ttft_s"]["p99"]["reason"] == "too_few_samples"


def test_stated_zeros_are_unknown(tmp_path: Path) -> None:
    """A rate of zero over no time is no rate."""
    zeros = vllm_result(duration=0.0, output_throughput=0.0, request_throughput=0.0)
    imported(tmp_path / "db", write_json(tmp_path / "v.json", zeros))
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["output_tokens_per_s"]["value"] is None


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder link"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    """A pipe or a device, also behind a link, is refused at once by each command that reads."""
    path = tmp_path / "x.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / ("pipe" if kind == "link" else "."))
    good = write_json(tmp_path / "good" / "v.json", vllm_result())
    where = ("--db", str(tmp_path / "db"))
    if kind != "folder link":
        for words in (("import", str(path), *where), ("audit", str(path))):
            done = called(*words)
            assert done.returncode in (1, 2)
            assert f"{path}: not a regular file" in done.stderr
        done = called("import", str(good), "--power-log", str(path), *where)
        assert "not a regular file" in done.stderr
    mapped = ["import", str(good), "--map", str(path), *where]
    for line in (["show", "model", str(path)], mapped):
        done = called(*line)
        assert done.returncode == 2
        assert kind == "folder link" or "not a regular file" in done.stderr


def test_a_deep_config_is_told_plainly(tmp_path: Path) -> None:
    """No word of recursion."""
    path = tmp_path / "config.json"
    path.write_text("[" * 100_000, encoding="utf-8")
    done = called("show", "model", str(path))
    assert done.returncode == 2
    assert "nested too deep" in done.stderr


def test_a_database_that_may_only_be_read_is_told(tmp_path: Path) -> None:
    """The file, and what to do; nothing was acknowledged, so nothing is said to be kept."""
    (one,) = imported(tmp_path / "db", write_json(tmp_path / "v.json", vllm_result()))["imports"]
    run_id = one["runs"][0]["run_id"]
    engine = connect(database_url(str(tmp_path / "db")), create=False)  # for reading
    record = dataclasses.replace(load_run(engine, run_id).record, run_id="other")
    load = ImportedLoad(requests=(), events=(), reported=(), documents=())
    with pytest.raises(StoreError) as error:
        add_imported(engine, record, load)
    engine.dispose()
    assert f"{tmp_path / 'db'} cannot be opened for writing" in str(error.value)
    assert "check the permissions" in str(error.value)
    assert "kept" not in str(error.value)
