"""``llama-bench -o json``, ``jsonl`` or ``csv``: a prompt and an answer are measured apart.

Source: llama.cpp ``tools/llama-bench``. A row is one test of one sequence: ``n_prompt`` alone
(pp), ``n_gen`` alone (tg), or both (pg). Its t/s are those of what it did: of a prompt input
tokens, of an answer output tokens, of both their sum. No energy, no end in time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from wattbench.core.run import Json, Mode
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.measurement import Measurement
from wattbench.interchange.results.table import header_of, rows_of

NAME = "llama-bench"
_KEYS = {"build_commit", "n_prompt", "n_gen", "avg_ts", "stddev_ts"}
_SETTINGS = ("n_batch", "n_ubatch", "n_threads", "n_gpu_layers")
_NUMERIC = (
    *("n_prompt", "n_gen", "n_depth", "avg_ts", "stddev_ts", "avg_ns", "stddev_ns"),
    *("build_number", *_SETTINGS),
)
_RATES = {
    "pp": "input_tokens_per_s",
    "tg": "output_tokens_per_s",
    "pg": "total_tokens_per_s",
}


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    first = glance.first[0] if isinstance(glance.first, list) and glance.first else glance.first
    keys = set(first) if isinstance(first, dict) else set(header_of(glance))
    if not keys >= _KEYS:
        return None
    return {"text": "csv", "lines": "jsonl"}.get(glance.form, "json")


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each test."""
    for glance in glances:
        rows: Iterator[tuple[str, Any]] = (
            rows_of(glance, _NUMERIC) if glance.form == "text" else glance.objects()
        )
        for place, value in rows:
            yield _measurement(Fields(place, value))


def _measurement(fields: Fields) -> Measurement:
    inputs, outputs = fields.count("n_prompt") or 0, fields.count("n_gen") or 0
    if not inputs and not outputs:
        raise fields.bad("n_prompt", inputs, "and n_gen as well: a test of nothing")
    kind = "pg" if inputs and outputs else "pp" if inputs else "tg"
    if fields.number("avg_ts") == 0.0:
        fields.note("refused", "avg_ts", "0 tokens/s of a test that did not run")
    else:
        fields.report("avg_ts", _RATES[kind], why=_why(kind))
    fields.report("avg_ns", "repeat_s", "mean", scale_ratio=1e-9)
    _take_scatter(fields, "stddev_ts", _RATES[kind], 1.0)
    _take_scatter(fields, "stddev_ns", "repeat_s", 1e-9)
    if kind == "tg" and fields.number("avg_ns"):
        fields.report("avg_ns", "tpot_s", "mean", scale_ratio=1e-9 / outputs, why="over n_gen")
    build, commit = fields.count("build_number"), fields.text("build_commit")
    kv = {fields.text("type_k"), fields.text("type_v")}
    return Measurement(
        tool=NAME,
        layout=kind,
        tool_version=commit,
        model=fields.text("model_type") or fields.text("model_filename"),
        engine=f"llama.cpp {build}" if build else "llama.cpp",
        mode=Mode(kv_precision=kv.pop() if len(kv) == 1 else None),
        hardware=fields.text("gpu_info") or fields.text("cpu_info"),
        operating_point=_point(fields, inputs, outputs),
        workload={"name": f"{NAME} {kind}"},
        reported=fields.reported,
        notes=fields.notes(),
    )


def _why(kind: str) -> str:
    return {"pp": "t/s of a prompt: input tokens", "pg": "t/s of prompt and answer"}.get(kind, "")


def _take_scatter(fields: Fields, name: str, metric: str, scale_ratio: float) -> None:
    """Of a single repeat llama-bench writes a deviation of 0."""
    if fields.number(name) == 0.0:
        fields.note("refused", name, "0 is what stands for a single repeat")
    else:
        fields.report(name, metric, "sd", scale_ratio=scale_ratio)


def _point(fields: Fields, inputs: int, outputs: int) -> dict[str, Json]:
    point: dict[str, Json] = {"concurrency": 1, "input_tokens": inputs, "output_tokens": outputs}
    depth = fields.count("n_depth")
    if depth:
        point["context_tokens"] = depth
    for name in _SETTINGS:
        value = fields.number(name)  # -1 is a setting: all layers
        if value is not None:
            fields.note("taken", name)
            point[name] = int(value)
    return point
