"""Stored runs out, in the forms of other tools and in this project's own.

A format is a function from runs to files, by name and content; adding one costs a function and its
place in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from wattbench.core.run import RawRun
from wattbench.exports.aiperf import aiperf_files
from wattbench.exports.inferencex import inferencex_files
from wattbench.exports.llmd import llmd_files
from wattbench.exports.tables import csv_file, json_file, parquet_file
from wattbench.interchange import run_lines

File = tuple[str, bytes]
"""Name and content."""


def runs_file(runs: Sequence[RawRun]) -> Iterator[File]:
    """All records of the runs; ``wattbench import`` takes them back exactly.

    Files that they were imported from stay where they are kept.
    """
    yield "runs.wattbench.jsonl", b"".join(run_lines(runs))


FORMATS: dict[str, Callable[[Sequence[RawRun]], Iterator[File]]] = {
    "wattbench": runs_file,
    "json": json_file,
    "csv": csv_file,
    "parquet": parquet_file,
    "inferencex": inferencex_files,
    "aiperf": aiperf_files,
    "llm-d": llmd_files,
}
"""Formats by name."""
