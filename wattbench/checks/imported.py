"""What must be said of a run that another tool carried out."""

from __future__ import annotations

from collections.abc import Iterator

from wattbench.checks.finding import finding, of_another_tool
from wattbench.core.result import Finding
from wattbench.metrics import PointFacts


def reported(point: PointFacts) -> Iterator[Finding]:
    """``reported_only``: figures of another tool, with no request behind them to be checked."""
    for run in point.runs:
        if run.raw.reported and not run.raw.requests:
            tool = run.raw.record.backend.get("tool")
            way = "" if of_another_tool(point) == "wrap" else ", or wrap it"
            message = (
                f"{tool} reports these figures, and its file has no single requests, so nothing of "
                f"them can be checked. Let the tool write its details{way}."
            )
            yield finding("reported_only", "warning", "performance", message)
            return


def enveloped(point: PointFacts) -> Iterator[Finding]:
    """``enveloped``: the energy is that of a program's whole life, not of its measured phase."""
    for run in point.runs:
        if run.raw.record.backend.get("alignment") == "enveloped" and run.raw.traces:
            why = "No result file that was taken tells when the tool measured"
            if run.raw.event_time_s("results_refused") is not None:
                why = "Result files were refused (wrap said why when it ended)"
            message = (
                f"{why}, so energy and power are of the program's whole life, start-up and warm-up "
                f"included; rates are over the tool's own time."
            )
            yield finding("enveloped", "warning", "energy", message)
            return


def shared_envelope(point: PointFacts) -> Iterator[Finding]:
    """``shared_envelope``: several loads of one program tell no times, so none has its joules."""
    for run in point.runs:
        if run.raw.event_time_s("shared_envelope") is not None:
            message = (
                "The program made several loads and its files do not tell when each was, so the "
                "joules of its life cannot be divided. Wrap each load by itself, or let the tool "
                "write its times (vLLM: --save-detailed)."
            )
            yield finding("shared_envelope", "error", "energy", message)
            return


def program_failed(point: PointFacts) -> Iterator[Finding]:
    """``program_failed``: the program that was wrapped did not end well."""
    for run in point.runs:
        ends = [event for event in run.raw.events if event.kind == "program_end"]
        codes = [event.detail.get("exit_code") for event in ends]
        if any(codes):
            message = f"The wrapped program ended with exit code {codes[0]}; look at its output."
            yield finding("program_failed", "warning", "both", message)
            return


def no_interval(point: PointFacts) -> Iterator[Finding]:
    """``no_interval``: joules of a meter over a load whose scatter nobody can tell."""
    found = point.metrics["energy_per_output_token_joules"]
    foreign = of_another_tool(point)
    metered = point.headline.kind not in (None, "reported")
    if foreign and metered and found.value is not None and found.low is None:
        message = (
            "The joules per output token have no interval, since the file tells no scatter or a "
            "part of the window gave no token; do not compare them. Measure longer."
        )
        yield finding("no_interval", "warning", "energy", message)


def reported_energy(point: PointFacts) -> Iterator[Finding]:
    """``reported_energy``: a joule out of a file, with no samples behind it."""
    if point.headline.kind == "reported" and point.headline.gross.value is not None:
        message = (
            f"The energy is what a file states ({point.headline.method}); no sample of power lies "
            f"behind it. Give the tool's power log with --power-log, or wrap it."
        )
        yield finding("reported_energy", "warning", "energy", message)
