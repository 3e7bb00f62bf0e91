"""A trace as a text of the command line: what it means, and every way in which it means nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wattbench.core.errors import UsageError
from wattbench.plugins import describe_options
from wattbench.traces import FixedLengths, poisson_trace, read_trace, trace_from_spec
from wattbench.traces.spec import OPTIONS


def test_a_spec_means_what_the_function_does(tmp_path: Path) -> None:
    """Generators with their options, a path, and a path with what is done to it."""
    spec = "poisson,rate=20,count=1000,input=1000,output=200,seed=1"
    made = trace_from_spec(spec)
    lengths = FixedLengths(input_tokens=1000, output_tokens=200)
    assert made.source.sha256 == poisson_trace(20.0, 1000, lengths, 1).source.sha256
    assert made.source.name == spec
    for spec in (
        "gamma,rate=3,cv=2.5,count=50,input=90,output=20,sigma=0.5,seed=4",
        "diurnal,rate=3,peak_to_mean=2.5,period_s=600,count=50,input=90,output=20,seed=4",
        "poisson,rate=3,count=50,input=90,output=20,turns=3,think_s=5,prefix=64,prefix_groups=2,"
        "block_tokens=32,seed=4",
    ):
        assert trace_from_spec(spec).source.name == spec
    path = tmp_path / "my,trace.csv"
    rows = "\n".join(f"{i},{i + 1},9" for i in range(100))
    path.write_text(f"time_s,input_tokens,output_tokens\n{rows}\n")
    assert trace_from_spec(str(path)).source == read_trace(path).source
    path.rename(tmp_path / "t.csv")
    made = trace_from_spec(
        f"{tmp_path}/t.csv,format=csv,start_s=10,end_s=60,first=40,rate=2,time=3"
    )
    assert made.source.changes == (
        "cut to 50 of 100 requests, from 10 s to 60 s",
        "cut to the first 40 of 50 requests",
        "arrivals 2 times as fast",
        "times multiplied by 3",
    )
    assert made.arrival_s[-1] == pytest.approx(39 * 1.5)
    assert len(trace_from_spec(f"{tmp_path}/t.csv,like=500,seed=2")) == 500
    drawn = trace_from_spec(f"gamma,rate=1,count=9,lengths={tmp_path}/t.csv")
    assert set(drawn.output_tokens.tolist()) == {9}


def test_the_documentation_is_true() -> None:
    """Every text of the page is a trace, and every option is on it."""
    page = (Path(__file__).parents[1] / "docs" / "traces.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    for spec in block.splitlines():
        assert len(trace_from_spec(spec)) == 10_000
    for options in OPTIONS.values():
        for option in describe_options(options):
            assert f"`{option['name']}`" in page


FLAT = "poisson,rate=1,input=9,output=9"
WRONG_SPECS = [
    (
        "poison,rate=1",
        "'poison' is no trace file and no generator; did you mean 'poisson'? (there ",
    ),
    ("", "must begin with a plug-in's name"),
    ("poisson,input=1,output=1", "poisson: needs rate=…, as in poisson,rate=VALUE"),
    ("poisson,rate=1", "poisson: needs input=… and output=…, as in input=1000,output=200, or"),
    ("poisson,rate=fast,input=1,output=1", "poisson: rate='fast' is not a number"),
    ("poisson,rate=0,input=1,output=1", "poisson: rate_per_s = 0.0 is not from 1e-07 to 1e+07"),
    ("poisson,rate=nan,input=1,output=1", "poisson: rate='nan' is not a number"),
    ("poisson,rate=1,input=0,output=1", "poisson: input_tokens = 0 is not from 1 to 10000000"),
    (f"{FLAT},outptu=4", "poisson: unknown option 'outptu'; did you mean 'output'?"),
    (f"{FLAT},count=0", "poisson: count = 0 is not from 1 to 1e+09"),
    (f"{FLAT},count=1.5", "poisson: count='1.5' is not a whole number"),
    (f"{FLAT},seed=-1", "poisson: seed = -1 is not from 0 to 2**63 - 1"),
    (f"{FLAT},sigma=9", "poisson: sigma_ratio = 9.0 is not from 0 to 5"),
    (f"{FLAT},turns=0.5", "poisson: mean_turns_count = 0.5 is not from 1 to 1000"),
    (f"{FLAT},think_s=-1", "poisson: think_s = -1.0 is not from 0"),
    (f"{FLAT},lengths=x", "poisson: lengths='x' has them; drop input=…"),
    ("poisson,rate=1,lengths=none.csv", "none.csv cannot be read: No such file"),
    ("poisson,rate=1,input=900000,output=900000,turns=300", "beyond 10000000; take fewer turns"),
    (
        f"{FLAT},turns=1000,think_s=1e6,count=200000",
        "poisson: sessions of 1000 turns with pauses of 1e+06 s last far longer than",
    ),
    (f"gamma{FLAT[7:]},cv=0", "gamma: cv_ratio = 0.0 is not from 0.01 to 30; 1 is Poisson"),
    (
        f"diurnal{FLAT[7:]},peak_to_mean=0.5",
        "diurnal: peak_to_mean_ratio = 0.5 is not from 1 to 20",
    ),
    (f"diurnal{FLAT[7:]},period_s=0", "diurnal: period_s = 0.0 is not from 0.001"),
    ("FILE,first=9", "n = 9 is not from 1 to the 3 requests of the trace; like() makes more"),
    ("FILE,like=9", "a trace of 3 requests is too short; needs 11"),
    ("FILE,start_s=5", "no request arrives from 5 s to inf s; the trace goes from 0 s to 2 s"),
    ("FILE,start_s=2,end_s=1", "a slice from 2.0 s to 1.0 s is empty; the start comes first"),
    ("FILE,rate=0", "rate_ratio = 0.0 is not from 1e-06 to 1e+06"),
    ("FILE,format=cvs", "format='cvs' is not one of azure, mooncake, burstgpt, csv, jsonl"),
    ("FILE,format=azure", "line 1: the format azure needs a column 'TIMESTAMP'; here are time_s"),
]


@pytest.mark.parametrize(("spec", "message"), WRONG_SPECS)
def test_a_bad_spec_is_one_error(tmp_path: Path, spec: str, message: str) -> None:
    """Whose option it is, the value, and what it may be."""
    path = tmp_path / "t.csv"
    path.write_text("time_s,input_tokens,output_tokens\n0,1,1\n1,1,1\n2,1,1\n")
    with pytest.raises(UsageError) as caught:
        trace_from_spec(spec.replace("FILE", str(path)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
