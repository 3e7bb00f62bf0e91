"""``wattbench import --map``: files of any tool, units converted, errors with their place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from command import called
from result_files import imported, shown, write_json, write_lines

from wattbench.cli.main import cli
from wattbench.core.errors import DocumentError
from wattbench.core.run import stated
from wattbench.interchange.results import BadDocument, Measurement, read_mapped

FIGURES: list[dict[str, Any]] = [
    {"metric": "ttft_s", "statistic": "p50", "field": "ttft", "unit": "ms"},
    {"metric": "energy_joules", "field": "energy", "unit": "Wh", "per_device": True},
    {"metric": "output_tokens_count", "field": "tokens", "unit": "tokens"},
    {"metric": "duration_s", "field": "minutes", "unit": "min"},
]


def write_map(path: Path, **changes: Any) -> Path:
    """A mapping of the columns of ``CSV``."""
    value: dict[str, Any] = {
        "tool": "my-bench",
        "model": {"field": "name"},
        "hardware": "my machine",
        "operating_point": {"concurrency": "users"},
        "boundary": "node",
        "devices": {"field": "gpus"},
        "figures": FIGURES,
    }
    value = {name: each for name, each in (value | changes).items() if each is not None}
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    return path


def write_csv(path: Path, text: str = "") -> Path:
    """Two runs: 2 Wh of each of two devices for 7200 tokens, and one whose TTFT is unknown."""
    rows = "name,users,gpus,ttft,energy,tokens,minutes,other\na,4,2,120,1,7200,1,x\nb,8,2,,2,9,1,\n"
    path.write_text(text or rows, encoding="utf-8")
    return path


def read_all(path: Path, mapping: Path) -> list[Measurement]:
    """The measurements of a file."""
    ((documents, tool, found),) = read_mapped([path], mapping)
    assert not isinstance(found, BadDocument), found
    assert tool == "my-bench"
    assert [document.path for document in documents] == [path, mapping]
    return found


def error_of(path: Path, mapping: Path) -> str:
    """Why a file is refused."""
    ((_, _, found),) = read_mapped([path], mapping)
    assert isinstance(found, BadDocument)
    return str(found)


def test_rows_become_runs(tmp_path: Path) -> None:
    """Units are converted, what is per device is made total, unknown is not 0."""
    mapping = write_map(tmp_path / "map.yaml")
    path = write_csv(tmp_path / "mine.csv")
    runs = imported(tmp_path / "db", path, "--map", mapping)["imports"][0]["runs"]
    assert [run["operating_point"] for run in runs] == [{"concurrency": 4}, {"concurrency": 8}]
    assert {"fate": "kept", "field": "other", "why": ""} in runs[0]["notes"]
    first, second = shown(tmp_path / "db")
    assert first["metrics"]["ttft_s"]["p50"]["value"] == pytest.approx(0.12)
    assert first["metrics"]["energy_per_output_token_joules"]["value"] == pytest.approx(1.0)
    assert first["metrics"]["mean_power_watts"]["value"] == pytest.approx(120.0)
    assert first["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(120.0)
    assert second["metrics"]["ttft_s"]["p50"]["value"] is None
    one = read_all(path, mapping)[0]
    assert (one.boundary, one.model, one.hardware, one.device_count) == (
        "node",
        "a",
        "my machine",
        2,
    )


def test_the_table_names_the_machine_and_the_interval(tmp_path: Path) -> None:
    """The machine is the mapping's, and ± 5 % of the reported joules stand beside what follows."""
    mapping = write_map(tmp_path / "map.yaml")
    database = str(tmp_path / "db")
    imported(tmp_path / "db", write_csv(tmp_path / "mine.csv"), "--map", mapping)
    table = called("show", "latest", "--db", database).stdout
    assert "hardware my machine" in table
    (line,) = [line for line in table.splitlines() if line.startswith("J / output token")]
    # 2 Wh over 7200 tokens: 1 J, and the uniform ± 5 % reach 4.75 % either way at 95 %.
    assert "1 0.953 … 1.05 assumed" in line
    (line,) = [line for line in table.splitlines() if line.startswith("tokens / J")]
    assert "1 0.955 … 1.05 assumed" in line
    found = shown(tmp_path / "db")[0]["metrics"]["energy_per_output_token_joules"]
    assert found["low"] is None  # the record tells no scatter, so what is compared has none


def test_another_mapping_is_another_run(tmp_path: Path) -> None:
    """The mapping is kept beside the file; a corrected one does not meet the wrong run."""
    path = write_csv(tmp_path / "mine.csv")
    for boundary in ("node", "board"):
        mapping = write_map(tmp_path / "map.yaml", boundary=boundary)
        (one,) = imported(tmp_path / "db", path, "--map", mapping)["imports"]
        assert [run["new"] for run in one["runs"]] == [True, True]
    (one,) = imported(tmp_path / "db", tmp_path, "--map", mapping, exit_code=1)["imports"][:1]
    assert one["files"] == [] or not one["runs"][0]["new"]


@pytest.mark.parametrize("form", ["nested", "list", "lines"])
def test_json_of_any_form(tmp_path: Path, form: str) -> None:
    """Paths with dots lead into objects and lists; a key with a dot is a key."""
    row = {"in": {"load": [4]}, "ttft.p50": 0.1, "watts": 300.0, "gpus": 2}
    figures = [
        {"metric": "ttft_s", "statistic": "p50", "field": "ttft.p50", "unit": "s"},
        {"metric": "mean_power_watts", "field": "watts", "unit": "W"},
    ]
    point = {"concurrency": "in.load.0"}
    changes: dict[str, Any] = {"figures": figures, "operating_point": point, "model": "m"}
    if form == "nested":
        path = write_json(tmp_path / "r.json", {"all": {"runs": [row, row]}})
        changes["rows"] = "all.runs"
    elif form == "list":
        path = write_json(tmp_path / "r.json", [row, row])
    else:
        path = write_lines(tmp_path / "r.jsonl", [row, row])
    first, _ = read_all(path, write_map(tmp_path / "map.yaml", **changes))
    assert first.operating_point == {"concurrency": 4}
    assert stated(first.reported, "ttft_s", "p50") == 0.1
    assert stated(first.reported, "mean_power_watts") == 300.0


def test_a_window_aligns(tmp_path: Path) -> None:
    """Start and end in Unix time, in their unit."""
    row = {"a": 1_790_000_000_000, "b": 1_790_000_060_000, "n": 6}
    figures = [{"metric": "output_tokens_count", "field": "n", "unit": "ktokens"}]
    mapping = write_map(
        tmp_path / "map.yaml",
        figures=figures,
        model=None,
        operating_point=None,
        devices=None,
        window={"start": "a", "end": "b", "unit": "ms"},
    )
    path = write_json(tmp_path / "r.json", row)
    (one,) = read_all(path, mapping)
    assert one.window_s == (1_790_000_000.0, 1_790_000_060.0)
    assert one.clock == "unix"
    assert stated(one.reported, "output_tokens_count") == 6000
    write_json(path, row | {"b": 1})
    assert "b is 1" in error_of(path, mapping)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unit": "sec"}, "no unit of ttft_s, which is a time (s, ms,"),
        ({"unit": "miliseconds"}, "did you mean 'ms'?"),
        ({"unit": "mS"}, "did you mean 'ms'"),
        ({"unit": "W"}, "no unit of ttft_s, which is a time"),
        ({"unit": "sec"}, "h); did you mean 's'?"),
        ({"metric": "tftt_s"}, "did you mean 'ttft_s'"),
        ({"statistic": "p100.0"}, "figures.0.statistic = 'p100.0': one of total, mean, sd, min"),
        ({"statistic": "p500"}, "or a percentile below p100"),
        ({"metric": "energy_joules", "unit": "j", "statistic": "mean"}, "is an energy (J, mJ"),
        ({"per_device": True}, "never one per device"),
        ({"column": "ttft"}, "unknown key 'figures.0.column'"),
        ({"metric": "output_tokens_count", "statistic": "total", "unit": "tokens"}, "stands twice"),
    ],
)
def test_a_wrong_figure(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """The message names file, line, key and the nearest right word."""
    mapping = write_map(tmp_path / "map.yaml", figures=[FIGURES[0] | changes, *FIGURES[1:]])
    with pytest.raises(DocumentError) as error:
        list(read_mapped([write_csv(tmp_path / "mine.csv")], mapping))
    assert said in str(error.value)
    assert str(error.value).startswith(f"{mapping}:")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"boundary": None}, "energy_joules needs boundary"),
        ({"boundary": "wall"}, "boundary = 'wall'"),
        ({"devices": None}, "needs devices"),
        ({"figures": []}, "figures = []"),
        ({"window": {"start": "a", "end": "b", "unit": "sec"}}, "no unit of time"),
    ],
)
def test_a_wrong_mapping(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """Energy has a boundary, and what is per device has a number of devices."""
    mapping = write_map(tmp_path / "map.yaml", **changes)
    with pytest.raises(DocumentError) as error:
        list(read_mapped([write_csv(tmp_path / "mine.csv")], mapping))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,users,gpus,tfft,energy,tokens,minutes\na,4,2,1,1,1,1\n", "did you mean 'tfft'"),
        (
            "name,users,gpus,ttft,energy,tokens,minutes\na,4,2,fast,1,1,1\n",
            "line 2: ttft is 'fast'",
        ),
        ("name,users,gpus,ttft,energy,tokens,minutes\na,4,1,1,1,-1,1\n", "never negative"),
        ("name,users,gpus,ttft,energy,tokens,minutes\na,4,0,1,1,1,1\n", "line 2: gpus is 0"),
        ("name,users,gpus,ttft,energy,tokens,minutes\na,4,1\n", "line 2: 3 cells under 7"),
        ("name,users,gpus,ttft,energy,tokens,minutes\n", "no row"),
        ("name,name\na,b\n", "named twice"),
    ],
)
def test_a_wrong_file(tmp_path: Path, text: str, said: str) -> None:
    """The message names file, line and column."""
    path = write_csv(tmp_path / "mine.csv", text)
    message = error_of(path, write_map(tmp_path / "map.yaml"))
    assert said in message
    assert str(path) in message


def test_a_row_without_its_devices(tmp_path: Path) -> None:
    """A figure per device of an unknown number is refused, the others are taken."""
    rows = "name,users,gpus,ttft,energy,tokens,minutes\na,4,,120,1,7200,1\nb,4,2,1,1,1,1\n"
    first, second = read_all(write_csv(tmp_path / "m.csv", rows), write_map(tmp_path / "map.yaml"))
    assert stated(first.reported, "energy_joules") is None
    assert stated(first.reported, "ttft_s", "p50") == pytest.approx(0.12)
    assert stated(second.reported, "energy_joules") == pytest.approx(7200.0)


def test_the_mapping_of_the_docs(tmp_path: Path) -> None:
    """The example of docs/importing.md reads a document of the form that it says."""
    page = (Path(__file__).parents[1] / "docs" / "importing.md").read_text(encoding="utf-8")
    mapping = tmp_path / "map.yaml"
    mapping.write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    row = {"model_name": "m", "users": 4, "gpus": 2, "began": 1e12, "ended": 1.00006e12}
    row |= {"ttft": {"p50": 120}, "gpu_energy": 1.0, "tokens": 7200, "seconds": 60}
    path = write_json(tmp_path / "r.json", {"results": {"runs": [row]}})
    (one,) = read_all(path, mapping)
    assert stated(one.reported, "energy_joules") == pytest.approx(7200.0)
    assert stated(one.reported, "ttft_s", "p50") == pytest.approx(0.12)
    assert one.window_s == pytest.approx((1e9, 1.00006e9))


def test_semicolons(tmp_path: Path) -> None:
    """Another mark between cells is told by the mapping."""
    text = write_csv(tmp_path / "a.csv").read_text(encoding="utf-8").replace(",", ";")
    path = write_csv(tmp_path / "b.csv", text)
    assert len(read_all(path, write_map(tmp_path / "map.yaml", delimiter=";"))) == 2


def test_format_and_map_exclude_each_other(tmp_path: Path) -> None:
    """The mapping says what the files are."""
    mapping = write_map(tmp_path / "map.yaml")
    words = ["import", str(write_csv(tmp_path / "a.csv")), "--map", str(mapping)]
    result = CliRunner().invoke(cli, [*words, "--format", "vllm-bench"])
    assert "--format" in str(result.exception)
    result = CliRunner().invoke(cli, [*words[:3], str(tmp_path / "no.yaml")])
    assert result.exit_code != 0


@pytest.mark.parametrize(
    ("metric", "unit", "value"),
    [
        ("energy_joules", "kWh", 3.6e6),
        ("energy_joules", "mJ", 1e-3),
        ("mean_power_watts", "kW", 1e3),
        ("energy_per_output_token_joules", "mJ/token", 1e-3),
        ("energy_per_output_token_joules", "kWh/Mtokens", 3.6),
        ("energy_per_request_joules", "Wh/request", 3600.0),
        ("requests_per_s", "requests/min", 1 / 60),
        ("interactivity_tokens_per_s_per_user", "tokens/s", 1.0),
        ("itl_s", "µs", 1e-6),
        ("completed_count", "requests", 1.0),
    ],
)
def test_units(tmp_path: Path, metric: str, unit: str, value: float) -> None:
    """One of each unit in this project's own."""
    figures = [{"metric": metric, "field": "x", "unit": unit}]
    changes: dict[str, Any] = {"figures": figures, "model": "m", "operating_point": {}}
    mapping = write_map(tmp_path / "map.yaml", **changes, devices=1)
    (one,) = read_all(write_json(tmp_path / "r.json", {"x": 1}), mapping)
    assert stated(one.reported, metric) == pytest.approx(value)


WINDOW = {"start": "b", "end": "e", "unit": "ms"}
BEGAN_S = 1_795_620_000


def write_power_log(path: Path) -> Path:
    """300 W, each second, from before the window to after it."""
    rows = "".join(f"{BEGAN_S + i},300\n" for i in range(-10, 80))
    path.write_text("time_unix_s,power_watts\n" + rows, encoding="utf-8")
    return path


def metered(tmp_path: Path, columns: dict[str, Any], figures: list[dict[str, Any]]) -> Any:
    """A row with a window of a minute, put beside 300 W; the only point of the store."""
    row = columns | {"b": BEGAN_S * 1000, "e": BEGAN_S * 1000 + 60_000}
    path = write_json(tmp_path / "r.json", row)
    changes: dict[str, Any] = {"figures": figures, "window": WINDOW, "boundary": "board"}
    gone: dict[str, Any] = {"model": None, "devices": None, "operating_point": None}
    mapping = write_map(tmp_path / "map.yaml", **changes, **gone)
    log = write_power_log(tmp_path / "power.csv")
    imported(tmp_path / "db", path, "--map", mapping, "--power-log", log)
    (point,) = shown(tmp_path / "db")
    return point


RATIO = {"metric": "energy_per_output_token_joules", "field": "j", "unit": "J/token"}
RATE = {"metric": "output_tokens_per_s", "field": "r", "unit": "tokens/s"}


def test_a_stated_ratio_is_never_a_measured_one(tmp_path: Path) -> None:
    """Joules of a meter, no tokens: the file's J/token stands under no kind that is measured."""
    point = metered(tmp_path, {"j": 0.5}, [RATIO])
    assert point["energy"]["headline"]["kind"] == "integrated"
    found = point["metrics"]["energy_per_output_token_joules"]
    assert (found["value"], found["reason"]) == (None, "stated_beside_a_meter")
    assert point["metrics"]["tokens_per_joule"]["reason"] == "count_not_told"
    assert point["metrics"]["energy_per_request_joules"]["reason"] == "count_not_told"
    assert point["metrics"]["mean_power_watts"]["value"] == pytest.approx(300.0)


def test_a_ratio_beside_a_meter_is_of_metered_joules(tmp_path: Path) -> None:
    """300 W at 100 tokens/s are 3 J per token, whatever the file says; the audit names it."""
    point = metered(tmp_path, {"j": 5, "r": 100}, [RATIO, RATE])
    found = point["metrics"]["energy_per_output_token_joules"]
    assert found["value"] == pytest.approx(3.0)
    assert found["low"] < 3.0 < found["high"]
    words = ["audit", "--runs", "latest", "--db", str(tmp_path / "db")]
    told = called(*words).stdout
    assert "reported_off_samples" in told
    assert "energy_per_output_token_joules is stated as 5" in " ".join(told.split())


def test_ratios_of_sums_have_the_interval_of_the_meter(tmp_path: Path) -> None:
    """The sums tell no scatter, and the joules have their own error: no ratio without interval."""
    figures = [
        {"metric": "energy_joules", "field": "g", "unit": "J"},
        {"metric": "output_tokens_count", "field": "n", "unit": "tokens"},
        {"metric": "duration_s", "field": "s", "unit": "s"},
    ]
    point = metered(tmp_path, {"g": 18_000, "n": 6000, "s": 60}, figures)
    gross = point["energy"]["headline"]["gross_joules"]
    for name, value in (("mean_power_watts", 300.0), ("energy_per_output_token_joules", 3.0)):
        found = point["metrics"][name]
        assert found["value"] == pytest.approx(value)
        assert found["low"] / value == pytest.approx(gross["low"] / 18_000, abs=1e-4)
        assert found["high"] / value == pytest.approx(gross["high"] / 18_000, abs=1e-4)


def test_the_duration_follows_from_the_window(tmp_path: Path) -> None:
    """Joules, tokens and a window are sums enough: 0.1 J/token, ± 5 % assumed of the joules."""
    row = {"b": BEGAN_S * 1000, "e": BEGAN_S * 1000 + 60_000, "j": 600, "n": 6000}
    figures = [
        {"metric": "energy_joules", "field": "j", "unit": "J"},
        {"metric": "output_tokens_count", "field": "n", "unit": "tokens"},
    ]
    gone: dict[str, Any] = {"model": None, "devices": None, "operating_point": None}
    mapping = write_map(tmp_path / "map.yaml", figures=figures, window=WINDOW, **gone)
    imported(tmp_path / "db", write_json(tmp_path / "r.json", row), "--map", mapping)
    (point,) = shown(tmp_path / "db")
    headline = point["energy"]["headline"]
    assert (headline["kind"], headline["gross_joules"]["value"]) == ("reported", 600)
    assert point["metrics"]["energy_per_output_token_joules"]["value"] == pytest.approx(0.1)
    assert point["metrics"]["mean_power_watts"]["value"] == pytest.approx(10.0)
    table = called("show", "latest", "--db", str(tmp_path / "db")).stdout
    (line,) = [line for line in table.splitlines() if line.startswith("J / output token")]
    assert "0.1 0.0953 … 0.105 assumed" in line


@pytest.mark.parametrize("joules", [0, -3])
def test_an_energy_of_nothing_is_no_energy(tmp_path: Path, joules: float) -> None:
    """A failed read stored as zero is refused, unknown in the result, and told by the audit."""
    path = write_csv(tmp_path / "m.csv", f"name,gpus,energy,tokens,minutes\na,1,{joules},100,1\n")
    mapping = write_map(tmp_path / "map.yaml", figures=FIGURES[1:], operating_point=None)
    (one,) = imported(tmp_path / "db", path, "--map", mapping)["imports"]
    (note,) = [note for note in one["runs"][0]["notes"] if note["fate"] == "refused"]
    assert "a failed read stored as zero" in note["why"]
    (point,) = shown(tmp_path / "db")
    gross = point["energy"]["headline"]["gross_joules"]
    assert (gross["value"], gross["reason"]) == (None, "read_stored_as_zero")
    found = point["metrics"]["energy_per_output_token_joules"]
    assert (found["value"], found["reason"]) == (None, "read_stored_as_zero")
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(100 / 60)
    told = called("audit", "--runs", "latest", "--db", str(tmp_path / "db")).stdout
    assert "read_stored_as_zero: energy_joules (energy)" in " ".join(told.split())


@pytest.mark.parametrize(
    ("joules", "reason"),
    [(0, "read_stored_as_zero"), (math.inf, "not_a_number"), (None, "no_meter")],
)
@pytest.mark.parametrize("sums", [False, True])
def test_figures_without_joules_have_a_kind(
    tmp_path: Path, joules: float | None, reason: str, sums: bool
) -> None:
    """A stated ratio beside a refused energy is shown as reported; the energy says its reason."""
    power = {"metric": "mean_power_watts", "field": "w", "unit": "W"}
    row = {"j": 1, "w": 100, "energy": joules, "tokens": 60, "minutes": 1, "gpus": 1}
    figures = [RATIO, power, FIGURES[1], *(FIGURES[2:] if sums else [])]
    gone: dict[str, Any] = {"model": None, "operating_point": None}
    mapping = write_map(tmp_path / "map.yaml", figures=figures, **gone)
    imported(tmp_path / "db", write_json(tmp_path / "r.json", row), "--map", mapping)
    (point,) = shown(tmp_path / "db")
    headline = point["energy"]["headline"]
    assert (headline["kind"], headline["boundary"]) == ("reported", "node")
    assert headline["gross_joules"] == {"value": None, "reason": reason}
    assert point["verdict"]["energy"] == "invalid"
    for metric, value in (("energy_per_output_token_joules", 1), ("mean_power_watts", 100)):
        found = point["metrics"][metric]
        assert (found["value"], found["reason"]) == (value, "reported_without_interval")
    assert "reported, node" in called("show", "latest", "--db", str(tmp_path / "db")).stdout


@pytest.mark.parametrize("cell", ["nan", "NaN", "inf", "-inf", "1e999"])
def test_what_is_no_number_costs_one_field(tmp_path: Path, cell: str) -> None:
    """It is refused with its reason; the rest of the row and the other rows are taken."""
    rows = f"name,gpus,energy,tokens,minutes\na,1,{cell},60,1\nb,1,1,60,1\n"
    path = write_csv(tmp_path / "m.csv", rows)
    mapping = write_map(tmp_path / "map.yaml", figures=FIGURES[1:], operating_point=None)
    (one,) = imported(tmp_path / "db", path, "--map", mapping)["imports"]
    (note,) = [note for note in one["runs"][0]["notes"] if note["fate"] == "refused"]
    assert note["field"] == "energy"
    assert note["why"].startswith("not a number: energy_joules is ")
    first, second = shown(tmp_path / "db")
    gross = first["energy"]["headline"]["gross_joules"]
    assert (gross["value"], gross["reason"]) == (None, "not_a_number")
    assert first["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(1.0)
    assert second["metrics"]["energy_per_output_token_joules"]["value"] == pytest.approx(60.0)


def test_infinity_in_json_costs_one_field(tmp_path: Path) -> None:
    """Python's ``json`` writes it without quotes."""
    path = write_json(tmp_path / "r.json", {"gpus": 1, "energy": math.inf, "tokens": 6})
    gone: dict[str, Any] = {"model": None, "operating_point": None}
    mapping = write_map(tmp_path / "map.yaml", figures=FIGURES[1:3], **gone)
    (one,) = read_all(path, mapping)
    assert stated(one.reported, "output_tokens_count") == 6
    assert "not a number: energy_joules is inf" in [note.why for note in one.notes]


def test_options_on_a_stored_load_are_said_to_be_ignored(tmp_path: Path) -> None:
    """The load stays as it is; the way to add the log is a command that works."""
    row = {"j": 3, "b": BEGAN_S * 1000, "e": BEGAN_S * 1000 + 60_000}
    path = write_json(tmp_path / "r.json", row)
    gone: dict[str, Any] = {"model": None, "devices": None, "operating_point": None}
    mapping = write_map(tmp_path / "map.yaml", figures=[RATIO], window=WINDOW, **gone)
    log = write_power_log(tmp_path / "power.csv")
    where = ("--db", str(tmp_path / "db"))
    words = ("import", str(path), "--map", str(mapping), *where)
    first = called(*words, "--tag", "a")
    assert (first.returncode, first.stderr) == (0, "")
    again = called(*words)
    assert (again.returncode, again.stderr) == (0, "")
    again = called(*words, "--power-log", str(log), "--tag", "b", "--json")
    assert again.returncode == 0
    (line,) = again.stderr.splitlines()
    assert "stored already and stays as it is, without --power-log, --tag" in line
    assert "another --db" in line
    command = line.partition("`wattbench ")[2].partition("`")[0].split()
    assert called(*command).returncode == 0
    (point,) = shown(tmp_path / "db")
    assert point["energy"]["headline"]["gross_joules"]["value"] == pytest.approx(18_000)


def test_a_column_that_is_not_there_is_bad_usage(tmp_path: Path) -> None:
    """As every other error of a mapping: exit code 2."""
    path = write_csv(tmp_path / "m.csv", "name,users\na,4\n")
    done = called("import", str(path), "--map", str(write_map(tmp_path / "map.yaml")))
    assert done.returncode == 2
    assert "figures[0].field" in done.stderr


def test_advice_for_a_load_of_another_tool(tmp_path: Path) -> None:
    """No repeats, no workload: what is said can be done."""
    point = metered(tmp_path, {"j": 5, "r": 100}, [RATIO, RATE])
    told = " ".join(finding["message"] for finding in point["findings"])
    assert "net energy" in told
    for word in ("--repeats", "idle_s", "duration_s"):
        assert word not in told
