"""Trace files: what each format means, what is changed, and every way in which one is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.core.errors import UsageError
from wattbench.traces import Format, Trace, TraceSource, read_rows, read_trace, trace_of

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:46.6805901,396,109
2023-11-16 18:15:50.9951690,879,55
"""
MOONCAKE = """{"timestamp": 500, "input_length": 1374, "output_length": 44, "hash_ids": [7, 9, 4]}
{"timestamp": 500, "input_length": 879, "output_length": 1, "hash_ids": [7, 9]}

{"timestamp": 4750, "input_length": 96, "output_length": 109, "hash_ids": []}
{"timestamp": 4750, "input_length": 513, "output_length": 9, "hash_ids": [7, 3]}
"""
BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Log Type
5,a,2,ChatGPT,374,44,Conversation log
5,,1,GPT-4,879,0,API log
5,b,9,ChatGPT,20,30,Conversation log
17,a,4,ChatGPT,400,100,Conversation log
18,b,1,ChatGPT,60,70,Conversation log
"""
PLAIN = """time_s,input_tokens,output_tokens,session,think_s,class
0.5,10,20,s,,chat
0.5,11,21,,,batch
3,40,22,s,1.5,chat
9,90,23,s,,chat
"""
JSONL = """{"arrival_s": 1, "input_tokens": 64, "output_tokens": 5, "blocks": [1000, 1],
"class": "x"}
{"arrival_s": 2, "input_tokens": 70, "output_tokens": 6, "blocks": [1000], "class": "y",
"session": 3}
""".replace(',\n"', ', "')
BLOCKED = JSONL.replace('"class"', '"block_tokens": 32, "class"')
FILES: dict[Format, str] = {
    "azure": AZURE,
    "mooncake": MOONCAKE,
    "burstgpt": BURSTGPT,
    "csv": PLAIN,
    "jsonl": JSONL,
}


def read(folder: Path, text: str, name: str = "t", **options: Any) -> Trace:
    (folder / name).write_text(text, newline="")
    return read_trace(folder / name, **options)


def same(one: Trace, other: Trace) -> bool:
    pairs = ((getattr(one, name), getattr(other, name)) for name in Trace.__slots__)
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def test_azure_keeps_its_seventh_digit(tmp_path: Path) -> None:
    """Differences of 100 ns survive a date of seventeen digits; zones are understood."""
    trace = read(tmp_path, AZURE)
    assert trace.arrival_s.tolist() == [0.0, 1e-7, 4.314579]
    assert trace.input_tokens.tolist() == [374, 396, 879]
    assert trace.output_tokens.tolist() == [44, 109, 55]
    assert trace.parent is None
    assert trace.blocks is None
    assert trace.source.format == "azure"
    assert trace.source.sha256 == hashlib.sha256(AZURE.encode()).hexdigest()
    assert trace.source.licence is None, "columns alone do not tell whose data it is"
    assert trace.duration_s == pytest.approx(4.314579)
    assert trace.mean_rate_per_s == pytest.approx(2 / 4.314579)
    zoned = AZURE.replace(",374", "+00:00,374").replace("46.6805901,", "47+00:00,")
    assert read(tmp_path, zoned).arrival_s[1] == pytest.approx(0.31941, abs=1e-12)


def test_mooncake_keeps_order_and_blocks(tmp_path: Path) -> None:
    """Equal stamps stay in the order of the file; hash ids become numbers from 0 on."""
    trace = read(tmp_path, MOONCAKE)
    assert trace.arrival_s.tolist() == [0, 0, 4.25, 4.25]
    assert trace.input_tokens.tolist() == [1374, 879, 96, 513]
    assert trace.block_tokens == 512
    assert trace.block_start is not None
    assert trace.blocks is not None
    assert trace.block_start.tolist() == [0, 3, 5, 5, 7]
    assert trace.blocks.tolist() == [2, 3, 1, 2, 3, 2, 0]
    broken = read(tmp_path, MOONCAKE.replace("[7, 3]", "[9, 7]"))
    assert (
        "2 of 3 blocks come after another block in one request than in another"
        in broken.source.doubts[-1]
    )


def test_burstgpt_failures_jitter_and_sessions(tmp_path: Path) -> None:
    """Failures are dropped and counted, whole seconds spread, pauses are gaps less the answer."""
    trace = read(tmp_path, BURSTGPT, seed=3)
    assert trace.output_tokens.tolist() == [44, 30, 100, 70]
    assert trace.parent is not None
    assert trace.think_s is not None
    assert trace.parent.tolist() == [-1, -1, 0, 1]
    gaps_s = trace.arrival_s[2:] - trace.arrival_s[:2]
    assert trace.think_s == pytest.approx([0, 0, gaps_s[0] - 2, gaps_s[1] - 9])
    assert np.all(np.diff(trace.arrival_s) > 0)
    assert np.all(np.abs(trace.arrival_s - [0, 0, 12, 13]) < 1)
    assert trace.source.changes == (
        "1 of 5 requests dropped: Response tokens = 0, a failure",
        "times are whole seconds: each request moved within its second at random, seed 3",
        "pauses before 2 later turns: the gap less the answer's time",
    )
    assert same(trace, read(tmp_path, BURSTGPT, seed=3))
    assert not same(trace, read(tmp_path, BURSTGPT, seed=4))
    fine = read(tmp_path, BURSTGPT.replace("\n17,", "\n17.5,"))
    assert fine.arrival_s.tolist() == [0, 0, 12.5, 13]


def test_plain_csv_has_sessions_pauses_and_classes(tmp_path: Path) -> None:
    """A pause that is not written is the gap, and the source says so."""
    trace = read(tmp_path, PLAIN)
    assert trace.parent is not None
    assert trace.think_s is not None
    assert trace.slo_class is not None
    assert trace.parent.tolist() == [-1, -1, 0, 2]
    assert trace.think_s.tolist() == [0, 0, 1.5, 6]
    assert trace.class_names == ("chat", "batch")
    assert trace.slo_class.tolist() == [0, 1, 0, 0]
    (change,) = trace.source.changes
    assert change.startswith("pauses before 1 later turns are not known: the whole gap")


def test_own_json_lines_have_blocks_of_their_size(tmp_path: Path) -> None:
    """A session of one turn is none; the size of a block is written, or assumed and said."""
    trace = read(tmp_path, BLOCKED)
    assert (trace.parent, trace.block_tokens, trace.class_names) == (None, 32, ("x", "y"))
    assert trace.blocks is not None
    assert trace.blocks.tolist() == [1, 0, 1]
    assert trace.source.changes == ()
    one = JSONL.replace("[1000, 1]", "[1000]")
    assert read(tmp_path, one).source.changes == (
        "block_tokens is not written: 512 assumed, as Mooncake has",
    )


@pytest.mark.parametrize("form", FILES)
def test_columns_tell_the_format_and_gzip_is_read(tmp_path: Path, form: Format) -> None:
    """Name and ending do not matter, nor does a mark at the beginning of the text."""
    text = BLOCKED if form == "jsonl" else FILES[form]
    plain = read(tmp_path, text)
    assert plain.source.format == form
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(("\ufeff" + text.replace("\n", "\r\n")).encode()))
    source = replace(plain.source, name="packed", sha256=read_trace(packed).source.sha256)
    assert same(read_trace(packed, form), replace(plain, source=source))


LONG = "100000000"
WRONG: list[tuple[str, str]] = [
    ("", "{file} is empty: a trace needs a line for each request"),
    ("\n \n", "{file} is empty"),
    ("time_s,input_tokens,output_tokens\n", "{file} has no request"),
    (
        "version https://git-lfs.github.com/spec/v1\noid x\n",
        "line 1: a pointer of Git LFS, not the",
    ),
    ("a,b\n1,2\n", "line 1: no known format has the columns a, b; known are azure: TIMESTAMP, Con"),
    ('{"chat_id": 1}\n', "line 1: no known format has the columns chat_id; known are"),
    ("{\n", "line 1: is no JSON"),
    (MOONCAKE + "{\n", "line 6: is no JSON"),
    (MOONCAKE + "[1]\n", "line 6: must be a JSON object"),
    (AZURE + "soon,1,2\n", "line 5: TIMESTAMP = 'soon' is no time"),
    (
        AZURE + "2023-11-16 18:15:47,1,2\n",
        "line 5: TIMESTAMP is 0.31941 s after the first request, "
        "earlier than 4.31458 s in line 4; sort the file by TIMESTAMP",
    ),
    (
        AZURE + "2023-11-17 18:15:47,0,2\n",
        "line 5: ContextTokens = '0' is no length from 1 to "
        "10000000 tokens; drop such a row, or mend it",
    ),
    (AZURE + "2023-11-17 18:15:47,5,-2\n", "line 5: GeneratedTokens = '-2' is no length from 1"),
    (AZURE + f"2023-11-17 18:15:47,{LONG},2\n", f"line 5: ContextTokens = '{LONG}' is no length"),
    (AZURE + "2023-11-17 18:15:47,5\n", "line 5: GeneratedTokens = 'None' is no length"),
    (PLAIN + "nan,1,1,,,chat\n", "line 6: time_s = 'nan' is no time"),
    (PLAIN + "9,nan,1,,,chat\n", "line 6: input_tokens = 'nan' is no length"),
    (PLAIN + "9,1,1,,,\n", "line 6: class is blank; write one for every request"),
    (
        PLAIN + "9,1,1,s,-3,chat\n",
        "line 6: think_s = '-3' is no number of seconds from 0 on; leave",
    ),
    (PLAIN + "9,1,1,s,nan,chat\n", "line 6: think_s = 'nan' is no number of seconds from 0 on"),
    (
        PLAIN + "1e12,1,1,,,chat\n",
        "line 6: time_s is 1e+12 s after the first request; a trace lasts",
    ),
    ("time_s\n0\n1\n", "the columns input_tokens and output_tokens are missing; a simulated"),
    ("time_s,input_tokens,output_tokens\n0,1,1\n" + "1" * 200_000, "line 3: field larger than"),
    (BURSTGPT.replace(",374,", ",-4,"), "line 2: Request tokens = '-4' is no length from 0"),
    ("Timestamp,Request tokens,Response tokens\n1,5,0\n", "no request was answered: all Response"),
    (MOONCAKE.replace("[7, 3]", "[7, 3, 1]"), "line 5: 3 blocks of 512 tokens in 513 tokens; the"),
    (
        MOONCAKE.replace("[7, 3]", '["a"]'),
        "line 5: hash_ids = \"['a']\" is no list of whole numbers",
    ),
    (MOONCAKE.replace("[7, 3]", f"[{2**63}]"), "is no list of whole numbers below 2**63"),
    (MOONCAKE.replace("513", "true"), "line 5: input_length = 'True' is no length from 1"),
    (BLOCKED + BLOCKED.replace("32", "16"), "block_tokens = 16, 32; all lines must have the same"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_bad_file_is_one_error_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """File, line, value, and the way out."""
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "t"))
    assert message.format(file=tmp_path / "t") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder, a broken archive, bytes that are no text, too many classes."""
    with pytest.raises(UsageError, match="none cannot be read: No such file"):
        read_trace(tmp_path / "none")
    with pytest.raises(UsageError, match="is not a regular file, but a folder"):
        read_trace(tmp_path)
    (tmp_path / "t.gz").write_bytes(gzip.compress(AZURE.encode() * 100)[:60])
    with pytest.raises(UsageError, match=r"t\.gz cannot be read: Compressed file ended"):
        read_trace(tmp_path / "t.gz")
    (tmp_path / "t").write_bytes(AZURE.encode() + b"\xff\n")
    with pytest.raises(UsageError, match="t cannot be read: it is no UTF-8 text"):
        read_trace(tmp_path / "t")
    lines = "\n".join(f"{index},1,1,,,{index}" for index in range(200))
    with pytest.raises(UsageError, match="200 classes; at most 127, so join some"):
        read(tmp_path, PLAIN.splitlines()[0] + "\n" + lines)


def test_an_invented_trace_is_doubted(tmp_path: Path) -> None:
    """Even gaps, models in turn and a great name on few rows, as one that goes round has."""
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    rows = [f"{i},{('ChatGPT', 'GPT-4')[i % 2]},{100 + i},{50 + i},1,x" for i in range(250)]
    doubts = read(tmp_path, header + "\n".join(rows), "BurstGPT_1.csv").source.doubts
    assert doubts == (
        "250 rows: the smallest public burstgpt file has 1404300",
        "100% of the gaps between arrivals are 1 s: no users come like that",
        "the models take turns, every 2 rows the same again",
    )
    assert read(tmp_path, PLAIN, "my-azure.csv").source.doubts == (
        "4 rows: the smallest public azure file has 8819",
    )
    assert read(tmp_path, PLAIN, "mine.csv").source.doubts == ()


def test_thousands_of_rows_are_read_in_parts(tmp_path: Path) -> None:
    """Names and blocks stay the same across parts; a bad row far down has its line; it is quick."""
    count = 30_000
    rows = [
        json.dumps(
            {
                "arrival_s": i / 7,
                "input_tokens": 40,
                "output_tokens": i + 1,
                "session": i % 900,
                "blocks": [i % 50, 100 + i % 50],
                "block_tokens": 16,
            }
        )
        for i in range(count)
    ]
    begin = time.process_time()
    trace = read(tmp_path, "\n".join(rows))
    assert time.process_time() - begin < 5
    assert trace.parent is not None
    assert trace.blocks is not None
    assert np.array_equal(trace.parent, np.maximum(np.arange(count) - 900, -1))
    assert np.array_equal(trace.blocks[::2], np.arange(count) % 50)
    assert np.array_equal(trace.output_tokens, np.arange(count) + 1)
    rows[25_000] = rows[25_000].replace("40", "0")
    with pytest.raises(UsageError, match="line 25001: input_tokens = '0'"):
        read(tmp_path, "\n".join(rows))


NOISE = st.text() | st.text('{}[],:"timestamp_inputlengthash 0123456789.e-\\n\\r', max_size=200)


@given(form=st.sampled_from(list(FILES)), text=NOISE)
def test_noise_is_rows_or_a_value_error(form: Format, text: str) -> None:
    """Nothing but ValueError, with all that a format may have."""
    for whole in (text, FILES[form] + text):
        with suppress(ValueError):
            rows = read_rows(whole.split("\n"), form, "t", extras=True)
            assert len(rows.time_s) == len(rows.line)


SOURCE = TraceSource(name="t", format="run", sha256="", licence=None)
TIMES, ONES = np.array([0.0, 1.0, 1.0]), np.ones(3, np.int32)
IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"arrival_s": TIMES[:0]}, "needs a request"),
    ({"arrival_s": TIMES[::-1].copy()}, "do not decrease; sort them"),
    ({"arrival_s": TIMES - 1}, "numbers from 0 on"),
    ({"arrival_s": np.array([0, 1, np.nan])}, "numbers from 0 on"),
    ({"arrival_s": TIMES.astype(np.float32)}, "contiguous array of float64"),
    ({"input_tokens": ONES[:2]}, "input_tokens has 2 values for 3 requests"),
    ({"output_tokens": ONES - 1}, r"output_tokens\[0\] = 0 is not from 1"),
    ({"parent": ONES - 2}, "parent and think_s come together"),
    ({"parent": ONES, "think_s": TIMES}, r"parent\[0\] = 1 is neither -1 nor an earlier"),
    ({"parent": ONES - 2, "think_s": TIMES - 1}, r"think_s\[0\] = -1.0 is no pause"),
    ({"parent": ONES - 2, "think_s": TIMES + np.inf}, "is no pause"),
    ({"blocks": ONES}, "come together: all, or none"),
    ({"blocks": ONES, "block_start": np.arange(4), "block_tokens": 0}, "block_tokens = 0"),
    ({"blocks": ONES, "block_start": np.zeros(4, np.int64), "block_tokens": 9}, "to the number of"),
    ({"blocks": -ONES, "block_start": np.arange(4), "block_tokens": 9}, r"blocks\[0\] = -1"),
    ({"slo_class": ONES.astype(np.int8)}, "slo_class and class_names come together"),
    ({"slo_class": ONES.astype(np.int8), "class_names": ("a",)}, r"slo_class\[0\] = 1 is not"),
]


@pytest.mark.parametrize("case", range(len(IMPOSSIBLE)))
def test_a_trace_checks_itself(case: int) -> None:
    """Nobody builds one that a simulator would stumble over."""
    wrong, message = IMPOSSIBLE[case]
    right: dict[str, Any] = {
        "arrival_s": TIMES,
        "input_tokens": ONES,
        "output_tokens": ONES,
        "source": SOURCE,
    }
    assert Trace(**right).mean_rate_per_s == 2
    with pytest.raises(ValueError, match=message):
        Trace(**(right | wrong))


def test_own_runs_become_a_trace() -> None:
    """Requests in any order on any clock; what is no request is refused with its place."""
    trace = trace_of([7.5, 5.0, 6.0], [1, 2, 3], [4, 5, 6], "run-1")
    assert trace.arrival_s.tolist() == [0, 1, 2.5]
    assert trace.input_tokens.tolist() == [2, 3, 1]
    assert (trace.source.name, trace.source.format, len(trace.source.sha256)) == (
        "run-1",
        "run",
        64,
    )
    assert trace_of([1.0], [1], [1], "r").mean_rate_per_s is None
    with pytest.raises(ValueError, match=r"run-1: .*one of each for every request"):
        trace_of([1.0], [1, 2], [1], "run-1")
    with pytest.raises(ValueError, match=r"run-1: starts_s\[1\] = nan is no time"):
        trace_of([1.0, np.nan], [1, 2], [1, 2], "run-1")
    with pytest.raises(ValueError, match=r"run-1: output_tokens\[0\] = 1.5 is no whole number"):
        trace_of([1.0], [1], [1.5], "run-1")
    with pytest.raises(ValueError, match=r"input_tokens\[0\] = 0 is not from 1"):
        trace_of([1.0], [0], [1], "run-1")
