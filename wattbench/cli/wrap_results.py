"""What ``wattbench wrap`` takes for results of the program: where they may lie, which are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from wattbench.interchange.results import (
    BadDocument,
    Document,
    Envelope,
    Measurement,
    find_results,
    read_results,
)

USUAL_FOLDERS = ("artifacts",)
"""Where tools write below the current folder when they are not told where."""
RESULT_SUFFIXES = (".json", ".jsonl", ".csv", ".yaml", ".gz")
"""What a file of results is called; one of another name is no candidate unless it is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the result files of a program say: one load, and the files."""

    measurement: Measurement
    documents: tuple[Document, ...]


def loads_written(
    places: Sequence[Path], results: Sequence[Path], started_unix_s: float, envelope: Envelope
) -> tuple[list[Found], list[str]]:
    """Loads in files that were written since the start and can be the program's.

    Args:
        places: Files and folders.
        results: Those that the user named.
        started_unix_s: When the program was started [Unix s].
        envelope: Its life.

    Returns:
        The loads, and each file that may have been meant with the reason why it was not taken.
    """
    found = []
    for missing in (place for place in places if not place.exists()):
        click.echo(f"wattbench: nothing was written at {missing}", err=True)
    there = find_results([place for place in places if place.exists()])
    files = [path for path in there if path.stat().st_mtime >= started_unix_s - 1.0]
    passed = [
        f"{path}: written before the program was started"
        for path in there
        if path in results and path not in files
    ]
    for documents, _, read in read_results(files):
        names = ", ".join(str(document.path) for document in documents)
        if isinstance(read, BadDocument):
            if documents:  # of a known tool
                click.echo(f"wattbench: {read}", err=True)
            elif _may_be_meant(str(read), files, results):
                passed.append(str(read))
            continue
        for measurement in read:
            if envelope.holds(measurement):
                found.append(Found(measurement=measurement, documents=documents))
            else:
                when = (
                    "its times lie outside of" if measurement.window_s else "it lasted longer than"
                )
                passed.append(f"{names}: {when} the life of the program")
    return found, passed


def _may_be_meant(message: str, files: Sequence[Path], results: Sequence[Path]) -> bool:
    """Whether the file that an error is of looks like a result: most new files are none."""
    of = [
        path for path in files if message.startswith(f"{path}:") or message.startswith(f"{path},")
    ]
    return any(path in results or path.suffix in RESULT_SUFFIXES for path in of)


def candidates(line: Sequence[str], results: Sequence[Path]) -> list[Path]:
    """Where result files may lie: what the user or the command names, and the current folder."""
    if results:
        return list(results)
    words = [part for word in line[1:] for part in re.split(r"[=,]", word) if part]
    named = [Path(word) for word in words if len(word) < 1024 and "\0" not in word]
    usual = [Path(name) for name in USUAL_FOLDERS]
    here = [path for path in Path().iterdir() if path.is_file()]
    there = [path for path in (*named, *usual) if path.exists() and not _is_above(path)]
    # The same file may be named in two ways.
    return list(dict.fromkeys(path.resolve() for path in (*there, *here)))


def _is_above(path: Path) -> bool:
    """Whether a folder holds the current one: it is not meant as a place of results."""
    return path.is_dir() and Path().resolve().is_relative_to(path.resolve())
