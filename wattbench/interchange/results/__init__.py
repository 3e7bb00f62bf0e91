"""Result files of other tools in: told apart by their content, read into measurements.

A format is a module with a ``NAME``, ``sniff`` (a layout, or None if a file is not its own) and
``read`` (measurements from all of its files in one folder). Adding one costs a module and its
place in ``READERS``. One that joins files names them in each measurement, and is in ``JOINED``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from wattbench.core.errors import UsageError, did_you_mean
from wattbench.interchange.results import (
    aiperf,
    endpoints,
    guidellm,
    inference_perf,
    inferencex,
    llama_bench,
    llm_d,
    llmperf,
    mlenergy,
    mlperf,
    sglang,
    vllm,
)
from wattbench.interchange.results.document import (
    BadDocument,
    BadMapping,
    Document,
    Watch,
    open_document,
    unwatched,
)
from wattbench.interchange.results.glance import BESIDE, Glance, glance_at
from wattbench.interchange.results.mapped import read_mapped
from wattbench.interchange.results.measurement import Clock, Fate, Measurement, Note
from wattbench.interchange.results.runs import (
    BACKEND,
    Alignment,
    Envelope,
    ImportedRun,
    imported_runs,
    window_events,
)

READERS: tuple[ModuleType, ...] = (
    vllm,
    inferencex,
    aiperf,
    guidellm,
    sglang,
    mlenergy,
    llama_bench,
    inference_perf,
    mlperf,
    endpoints,
    llmperf,
    llm_d,
)
JOINED: tuple[ModuleType, ...] = (inferencex, aiperf, inference_perf, mlperf)
"""Readers of tools that write one load into several files; of the others each file is whole."""
FORMATS: tuple[str, ...] = tuple(reader.NAME for reader in READERS)

__all__ = [
    "BACKEND",
    "FORMATS",
    "Alignment",
    "BadDocument",
    "BadMapping",
    "Clock",
    "Document",
    "Envelope",
    "Fate",
    "ImportedRun",
    "Measurement",
    "Note",
    "Read",
    "Watch",
    "find_results",
    "imported_runs",
    "open_document",
    "read_mapped",
    "read_results",
    "window_events",
]

_OWN_KEYS = {"schema_version", "db", "points"}
_OWN_CSV = "batch_id,point_index,run_count,"
"""What ``wattbench export`` writes as ``json`` and ``csv`` begins so."""

Read = tuple[tuple[Document, ...], str, list[Measurement] | BadDocument]
"""Files that belong together, the name of their format (empty if unknown), and what they say."""


def find_results(paths: Sequence[Path]) -> list[Path]:
    """Every file of the paths; of a folder all files in it and below, hidden ones left out.

    Raises:
        UsageError: If there is nothing at a path.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            files += [p for p in inside if not _is_hidden(p.relative_to(path))]
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"there is no file or folder {path}")
    if paths and not files:
        raise UsageError(f"there is no file in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(files))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_results(
    paths: Sequence[Path], wanted: str = "auto", watch: Watch = unwatched
) -> Iterator[Read]:
    """What files say, those of one tool in one folder together; a bad file costs only its own.

    Args:
        paths: Files.
        wanted: A format by name, or ``auto`` to tell it from the content.
        watch: Told how far the reading of a file is.

    Raises:
        UsageError: If there is no such format.
    """
    if wanted != "auto" and wanted not in FORMATS:
        known = ", ".join(["auto", *FORMATS])
        raise UsageError(
            f"there is no format {wanted!r} (there are {known}){did_you_mean(wanted, FORMATS)}"
        )
    groups: dict[tuple[str, Path], list[Glance]] = {}
    for path in paths:
        try:
            document = open_document(path, watch)
            glance = glance_at(document)
            reader = _reader(glance, wanted)
        except BadDocument as error:
            yield (), "", error
            continue
        if reader.sniff(glance) == BESIDE:
            yield (document,), reader.NAME, []
            continue
        groups.setdefault((reader.NAME, path.parent), []).append(glance)
    for (name, _), glances in groups.items():
        yield from _read_group(next(r for r in READERS if name == r.NAME), glances)


def _read_group(reader: ModuleType, glances: Sequence[Glance]) -> Iterator[Read]:
    """Files of one tool in one folder; if one of them is bad, the others without it."""
    read = _read(reader, glances)
    if not isinstance(read, BadDocument) or len(glances) == 1:
        yield tuple(glance.document for glance in glances), reader.NAME, read
        return
    alone = [(glance, _read(reader, [glance])) for glance in glances]
    good = [glance for glance, found in alone if not isinstance(found, BadDocument)]
    if len(good) == len(glances):  # each by itself is right, together they contradict each other
        yield tuple(glance.document for glance in glances), reader.NAME, read
        return
    for glance, found in alone:
        if isinstance(found, BadDocument):
            yield (glance.document,), reader.NAME, found
    if good:
        yield from _read_group(reader, good)


def _read(reader: ModuleType, glances: Sequence[Glance]) -> list[Measurement] | BadDocument:
    try:
        if reader in JOINED:
            return list(reader.read(glances))
        return [
            replace(measurement, files=(glance.document.path.name,))
            for glance in glances
            for measurement in reader.read([glance])
        ]
    except BadDocument as error:
        return error


def _reader(glance: Glance, wanted: str) -> ModuleType:
    for reader in READERS:
        if wanted in ("auto", reader.NAME) and reader.sniff(glance) is not None:
            return reader
    if glance.keys >= _OWN_KEYS or (glance.form == "text" and glance.first.startswith(_OWN_CSV)):
        raise BadDocument(
            f"{glance.document.path}: conclusions of this project's own, which hold no records; "
            f"export the runs with `wattbench export --format wattbench`, and import that file"
        )
    keys = ", ".join(sorted(glance.keys)[:6]) or "none"
    asked = "any known tool" if wanted == "auto" else wanted
    raise BadDocument(
        f"{glance.document.path}: not a result of {asked} (its keys: {keys}); --format takes "
        f"{', '.join(FORMATS)}, and --map a file of your own that says where things are"
    )
