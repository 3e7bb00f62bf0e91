"""The fitted function: off by little where it has not looked, and honest about how much."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sweeps
from command import called
from hypothesis import given, settings
from hypothesis import strategies as st

from wattbench.core.errors import UsageError
from wattbench.tpf.forms import FORMS, left_out_errors
from wattbench.tpf.function import OutsideDomain, fit
from wattbench.tpf.process import fit_process, on_other_rows
from wattbench.tpf.table import table_of
from wattbench.tpf.validate import leave_group_out, leave_one_out, rank_pairs

TABLE = sweeps.table()
SMALL = TABLE.take(np.flatnonzero([model in ("m2", "m7", "m70") for model in TABLE.words["model"]]))
FITTED = fit(TABLE)


def point(**columns: str | float) -> Any:
    """A table of one point to predict."""
    size = sweeps.SIZES.get(str(columns["model"]), 7.0)
    row: dict[str, str | float] = {"task": "chat", "machine_count": 1.0, **columns}
    return table_of([row | {"active_params_billions": size}], sweeps.BY)


def test_left_out_points_are_near_and_in_their_bands() -> None:
    """Noise of 2 % and sweeps of their own level: what is left out is off by about the noise."""
    found = leave_one_out(TABLE, folds=4)
    assert len(found.rows) == 5 * len(sweeps.MACHINES) * len(sweeps.SIZES)
    assert np.median(found.error_fractions) < 0.025
    assert 0.82 <= found.inside.mean() <= 0.97
    assert np.median(found.half_width_fractions) <= 1.3 * np.quantile(found.error_fractions, 0.9)


def test_machines_carry_models_they_never_ran() -> None:
    """A cell that is left out is predicted from its machine and its model: own level 5 %."""
    found = leave_group_out(TABLE, ("machine", "model"), folds=4)
    assert len(found.rows) == len(TABLE)
    assert np.median(found.error_fractions) < 0.08
    assert 0.82 <= found.inside.mean() <= 0.98
    pairs = rank_pairs(found)
    assert pairs.declared / pairs.count > 0.5
    assert pairs.right / pairs.declared > 0.95


def test_nothing_has_seen_the_point_that_is_left_out() -> None:
    """Another value of one point leaves its own prediction and band as they were."""
    before = leave_one_out(SMALL, folds=3)
    place = 17
    row = int(before.rows[place])
    moved = SMALL.energy_per_output_token_joules.copy()
    moved[row] *= 3.0
    after = leave_one_out(replace(SMALL, energy_per_output_token_joules=moved), folds=3)
    assert after.predicted_joules[place] == pytest.approx(before.predicted_joules[place], rel=1e-9)
    assert after.log_half_width[place] == pytest.approx(before.log_half_width[place], rel=1e-9)
    assert not np.allclose(after.predicted_joules, before.predicted_joules, rtol=1e-6)


def test_no_cell_has_seen_itself() -> None:
    """The same for whole cells."""
    cell = ("machine", "model")
    rows = SMALL.rows_by(cell)[("new", "m7")]
    moved = SMALL.energy_per_output_token_joules.copy()
    moved[rows] *= 2.0
    before = leave_group_out(SMALL, cell, folds=3)
    changed = replace(SMALL, energy_per_output_token_joules=moved)
    after = leave_group_out(changed, cell, folds=3)
    assert after.predicted_joules[rows] == pytest.approx(before.predicted_joules[rows], rel=1e-9)


def test_leaving_out_in_closed_form_is_leaving_out() -> None:
    """The shortcut gives what a process without those rows predicts."""
    process = fit_process(TABLE, np.log(TABLE.energy_per_output_token_joules))
    rows = TABLE.groups()[("old", "m8", "chat")][1:3]
    rest = np.setdiff1d(np.arange(len(TABLE)), rows)
    without = on_other_rows(process, TABLE.take(rest), process.target[rest], process.trust[rest])
    expected = without.predict(TABLE.take(rows))
    found = process.left_out([rows])
    assert found.log[rows] == pytest.approx(expected.log, rel=1e-6)
    assert found.log_sd[rows] == pytest.approx(expected.log_sd, rel=1e-4)


def test_three_points_give_a_usable_curve() -> None:
    """Of a new sweep three points are known: pooling gives the rest, with a wider band."""
    lines = [
        row
        for row in sweeps.rows()
        if (row["machine"], row["model"]) != ("third", "m34") or row["concurrency"] in (1, 32, 256)
    ]
    function = fit(table_of(lines, sweeps.BY))
    known = function.predict(point(machine="third", model="m34", concurrency=100.0))[0]
    band = known.energy_per_output_token_joules
    full = FITTED.predict(point(machine="third", model="m34", concurrency=100.0))[0]
    assert known.measured_points == 3
    assert band.value == pytest.approx(full.energy_per_output_token_joules.value, rel=0.06)
    narrow = full.energy_per_output_token_joules
    assert band.high / band.low > 0.98 * narrow.high / narrow.low


def test_one_wrong_row_does_not_bend_its_neighbours() -> None:
    """A row that is half as much again as it was counts for little."""
    row = int(SMALL.groups()[("old", "m7", "chat")][3])
    wrong = SMALL.energy_per_output_token_joules.copy()
    wrong[row] *= 1.5
    neighbour = SMALL.take(np.array([row - 1, row + 1]))
    before = fit(SMALL).predict(neighbour)
    bent = fit(replace(SMALL, energy_per_output_token_joules=wrong))
    assert bent.energy.trust[row] < 0.2
    for old, new in zip(before, bent.predict(neighbour), strict=True):
        value = old.energy_per_output_token_joules.value
        assert new.energy_per_output_token_joules.value == pytest.approx(value, rel=0.05)


def test_joules_grow_with_context() -> None:
    """Context is a descriptor like the model's size: between 1K and 16K, 4K is predicted."""
    lines = [
        row
        | {
            "task": str(size),
            "context_tokens": float(size),
            "energy_per_output_token_joules": float(row["energy_per_output_token_joules"])
            * (1 + size / 4096),
        }
        for size in (1024, 2048, 8192, 16384)
        for row in sweeps.rows(noise=0.01)
        if row["machine"] == "old"
    ]
    function = fit(table_of(lines, sweeps.BY))
    at = point(machine="old", model="m8", task="new", concurrency=32.0, context_tokens=4096.0)
    base = next(
        float(row["energy_per_output_token_joules"])
        for row in lines
        if row["model"] == "m8" and row["concurrency"] == 32 and row["context_tokens"] == 1024
    )
    found = function.predict(at)[0].energy_per_output_token_joules
    assert found.value == pytest.approx(base * 2 / 1.25, rel=0.15)


def test_a_curve_may_turn_up() -> None:
    """Joules that rise at a large batch are predicted so."""
    lines = sweeps.rows(noise=0.005)
    for row in lines:
        users = float(row["concurrency"])
        row["energy_per_output_token_joules"] = float(row["energy_per_output_token_joules"]) * (
            1 + (users / 120) ** 2 if users > 60 else 1
        )
    function = fit(table_of(lines, sweeps.BY))
    at = [point(machine="old", model="m7", concurrency=float(users)) for users in (64, 128, 256)]
    values = [function.predict(each)[0].energy_per_output_token_joules.value for each in at]
    assert values[1] < values[2]


def test_outside_of_what_was_measured_it_refuses() -> None:
    """A concurrency beyond the sweep, and a machine and model that nothing is known of."""
    with pytest.raises(OutsideDomain, match="1000 is outside of 1 to 256, where this sweep"):
        FITTED.predict(point(machine="old", model="m7", concurrency=1000.0))
    with pytest.raises(OutsideDomain, match="machine_count 64 is beyond"):
        FITTED.predict(point(machine="old", model="m7", concurrency=8.0, machine_count=64.0))
    with pytest.raises(OutsideDomain, match="shares its machine or its model"):
        FITTED.predict(point(machine="unheard", model="of", concurrency=8.0))


def test_what_a_meter_is_off_by_reaches_the_band() -> None:
    """A gain that all points share cannot be seen in their scatter; their interval carries it."""
    lines = [row | {"energy_half_width_fraction": 0.3} for row in sweeps.rows()]
    metered = fit(table_of(lines, sweeps.BY))
    at = point(machine="old", model="m7", concurrency=50.0)
    wide = metered.predict(at)[0].energy_per_output_token_joules
    narrow = FITTED.predict(at)[0].energy_per_output_token_joules
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high / wide.value == pytest.approx(1 + 0.3 * 1.645 / 1.96, rel=0.02)
    assert narrow.high / narrow.value < 1.06


def test_a_point_may_leave_out_what_is_unknown() -> None:
    """Without its size a model is only a name: the same value, if its sweep is known."""
    bare = table_of([{"machine": "old", "model": "m7", "task": "chat", "concurrency": 50.0}], ())
    found = FITTED.predict(bare)[0].energy_per_output_token_joules
    whole = FITTED.predict(point(machine="old", model="m7", concurrency=50.0))[0]
    assert found.value == pytest.approx(whole.energy_per_output_token_joules.value, rel=0.3)
    assert found.low < whole.energy_per_output_token_joules.value < found.high


def test_a_sweep_known_by_its_group_keeps_its_machine_and_model() -> None:
    """Descriptors that do not name the sweep follow from it: nothing of it is unseen."""
    lines = [row | {"group": f"{row['machine']}/{row['model']}"} for row in sweeps.rows()]
    grouped = fit(table_of(lines, ("group",)))
    bare = table_of([{"group": "new/m70", "concurrency": 50.0}], ("group",))
    (found,) = grouped.predict(bare)
    whole = FITTED.predict(point(machine="new", model="m70", concurrency=50.0))[0]
    assert found.unseen == ()
    joules = found.energy_per_output_token_joules
    assert joules.value == pytest.approx(whole.energy_per_output_token_joules.value, rel=0.02)
    assert joules.high / joules.low < 1.25


def test_what_nothing_is_known_of_is_never_narrow() -> None:
    """One more machine or task: from three machines and one task no spread can be known."""
    known = FITTED.predict(point(machine="new", model="m70", concurrency=32.0))[0]
    for columns in ({"machine": "l4"}, {"task": "code"}):
        at = {"machine": "new", "task": "chat"} | columns
        found = FITTED.predict(point(model="m70", concurrency=32.0, **at))[0]
        band = found.energy_per_output_token_joules
        least = 2.0 if "machine" in columns else 1.5
        assert found.unseen == tuple(columns)
        assert band.high / band.value > least
        assert known.energy_per_output_token_joules.high / band.value < band.high / band.value
    assert known.unseen == ()


def test_power_is_joules_times_rate() -> None:
    """The identity of every record holds for predictions."""
    found = FITTED.predict(point(machine="new", model="m8", concurrency=50.0))[0]
    rate, power = found.output_tokens_per_s, found.mean_power_watts
    assert rate is not None
    assert power is not None
    assert power.value == pytest.approx(rate.value * found.energy_per_output_token_joules.value)
    assert power.low < power.value < power.high


@given(
    a=st.floats(1e-3, 10.0), b=st.floats(1e-2, 100.0), users=st.sampled_from([(1, 256), (8, 900)])
)
@settings(max_examples=25, deadline=None)
def test_each_formula_finds_its_own_law(a: float, b: float, users: tuple[int, int]) -> None:
    """Points of a law without noise are predicted by its formula, left out as well."""
    at = np.geomspace(*users, 7)
    for form in FORMS[:3]:
        law = form.joules({"a": a, "b": b, "c": 0.8, "d": a / 500}, at)
        assert np.abs(left_out_errors(form, at, law)).max() < 1e-3


def test_the_command_line(tmp_path: Path) -> None:
    """``tpf fit`` and ``tpf predict`` on a table: what the JSON promises."""
    lines = [row for row in sweeps.rows() if row["model"] in ("m2", "m7", "m70")]
    path = sweeps.write(tmp_path / "points.csv", lines)
    by = ("--csv", str(path), "--by", ",".join(sweeps.BY))
    done = called("tpf", "fit", *by, "--validate", "loo", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told["validation"]) >= {"median", "p90", "p95", "n", "band_coverage_90"}
    assert set(told["pairs"]) == {"declared_fraction", "ordered_right_fraction", "n"}
    assert len(told["groups"]) == 3 * len(sweeps.MACHINES)
    group = told["groups"][0]
    assert set(group) >= {"group", "form", "parameters", "errors", "curve"}
    assert group["parameters"]["formula"] in [form.name for form in FORMS]
    at = "machine=new,model=m70,concurrency=20"
    done = called("tpf", "predict", *by, "--at", at, "--json")
    (found,) = json.loads(done.stdout)["points"]
    truth = sweeps.joules(sweeps.MACHINES["new"], sweeps.SIZES["m70"], 20)
    assert found["energy_per_output_token_joules"]["value"] == pytest.approx(truth, rel=0.2)
    text = called("tpf", "fit", *by, "--validate", "leave-group-out:machine")
    assert "points that nothing fitted has seen are off by" in text.stdout


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,4,-1", "line 3: energy_per_output_token_joules is '-1'; it must be a number above 0"),
        ("a,x,1", "line 3: concurrency is 'x'"),
        ("a,4,nan", "line 3: energy_per_output_token_joules is 'nan'"),
        ("a,4", "line 3: has not 3 cells"),
        (",4,1", "line 3: group is empty"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, line: str, message: str) -> None:
    """File, line, column, value, and what it must be."""
    path = tmp_path / "t.csv"
    head = "group,concurrency,energy_per_output_token_joules\na,2,1.0\n"
    path.write_text(head + line + "\n", encoding="utf-8")
    done = called("tpf", "fit", "--csv", str(path))
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "by --csv FILE or by --runs SELECTOR"),
        (("--csv", "T", "--by", "machin"), "there is no column 'machin'"),
        (("--csv", "T", "--by", "concurrency"), "what all of its points share"),
        (("--csv", "T", "--validate", "loo:a"), "it is loo, or leave-group-out"),
        (("--csv", "T", "--by", "machine", "--validate", "leave-group-out:task"), "only one task"),
    ],
)
def test_wrong_use_is_named(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """One clear error each."""
    lines = [row | {"group": row["machine"]} for row in sweeps.rows()]
    path = sweeps.write(tmp_path / "t.csv", lines)
    done = called("tpf", "fit", *(str(path) if word == "T" else word for word in arguments))
    assert done.returncode == 2
    assert message in done.stderr


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe would be waited for and a device read for ever."""
    path = tmp_path / "x.csv"
    os.mkfifo(path)
    for place in (str(path), "/dev/zero"):
        done = called("tpf", "fit", "--csv", place)
        assert done.returncode == 2
        assert f"{place}: not a regular file" in done.stderr


def test_unlike_boundaries_are_never_fitted_together(tmp_path: Path) -> None:
    """Counters of boards and a modelled power of the same machine are kept apart."""
    database = str(tmp_path / "r.sqlite")
    base = ("run", "quickstart", "--backend", "emulated", "--hardware", "h100-sxm", "--quiet")
    for extra in (("--concurrency", "1,2,8"), ("--meter", "nameplate", "--concurrency", "4")):
        done = called(*base, *extra, "--tag", "mixed", "--db", database)
        assert done.returncode == 0, done.stderr
    done = called("tpf", "fit", "--runs", "tag=mixed", "--db", database)
    assert done.returncode == 2
    assert "cannot be fitted together" in done.stderr


@pytest.mark.parametrize("column", ["boundary", "energy_kind"])
def test_a_table_has_one_boundary_and_one_kind(tmp_path: Path, column: str) -> None:
    """Where a table tells, unlike joules in it are refused, with the line; alike ones are named."""
    texts = ("board", "node") if column == "boundary" else ("counter", "modelled")
    lines = [row | {column: texts[0]} for row in sweeps.rows()[:5]]
    path = sweeps.write(tmp_path / "t.csv", lines)
    asked = ("tpf", "fit", "--by", "machine", "--json", "--csv")
    told = json.loads(called(*asked, str(path)).stdout)
    assert told["energy_boundary"] == ("board" if column == "boundary" else None)
    sweeps.write(path, [*lines, lines[0] | {column: texts[1]}])
    done = called(*asked, str(path))
    assert done.returncode == 2
    assert f"line 7: {column} is '{texts[1]}', and elsewhere '{texts[0]}'" in done.stderr


def test_no_table_is_too_small_to_say_so() -> None:
    """One sweep of four points has no interior to validate on."""
    few = TABLE.take(TABLE.groups()[("old", "m8", "chat")][:4])
    with pytest.raises(UsageError, match="no sweep has 5 points"):
        leave_one_out(few)
    assert len(fit(few).predict(few)) == 4
