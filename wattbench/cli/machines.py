"""Machine profiles and model descriptors, figure by figure."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattbench.cli.tables import console, number
from wattbench.hardware import MachineProfile, ModelDescriptor, load_model, load_profile
from wattbench.hardware.detect import NAME as LOCAL_CPU
from wattbench.hardware.detect import detect_cpu

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def show_hardware(name: str, *, as_json: bool) -> None:
    """Print a profile.

    Raises:
        DocumentError: If there is none, or the file is wrong.
    """
    today = datetime.date.today().isoformat()
    profile = detect_cpu(today) if name == LOCAL_CPU else load_profile(name)
    if as_json:
        content = profile.model_dump(mode="json", exclude_none=True)
        click.echo(json.dumps({"schema_version": 1, "hardware": content}, allow_nan=False))
        return
    out = console()
    known = profile.power_evidence or "nobody published it"
    boundary = f", {profile.power.boundary}" if profile.power else ""
    _print(
        out,
        f"[bold]{escape(profile.name)}[/] {escape(profile.title)} · {escape(profile.vendor)} · "
        f"{profile.device_class} · power under load: {known}{boundary}",
    )
    sources = _print_figures(out, profile)
    for index, source in enumerate(sources, start=1):
        _print(out, escape(f"[{index}] {source}"))
    for what in ("calibrated_on", "checked_against"):
        text = getattr(profile, what)
        if text is not None:
            _print(out, f"{what.replace('_', ' ')}: {escape(text)}")


def _print_figures(out: Console, profile: MachineProfile) -> Sequence[str]:
    """The table; returns the sources that it numbers."""
    sources: dict[str, int] = {}
    notes: list[str] = []
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("figure", "value", "range", "evidence", "source"):
        table.add_column(title, overflow="fold")
    for place, figure in profile.figures():
        index = sources.setdefault(f"{figure.source} ({figure.date})", len(sources) + 1)
        interval = ""
        if figure.low is not None and figure.high is not None:
            interval = f"{quantity(figure.low, figure.unit)} … {quantity(figure.high, figure.unit)}"
        cells = (place, quantity(figure.value, figure.unit), interval, figure.evidence)
        table.add_row(*map(escape, cells), escape(f"[{index}]"))
        if figure.note is not None:
            notes.append(f"{place}: {figure.note}")
    out.print(table)
    for note in notes:
        _print(out, escape(note))
    return list(sources)


def show_model(name: str, *, as_json: bool) -> None:
    """Print a descriptor and what follows from it.

    Raises:
        DocumentError: If there is none, or the file is wrong.
    """
    model = load_model(name)
    derived = {
        "weight_bytes": model.weight_bytes,
        "active_weight_bytes": model.active_weight_bytes,
        "kv_bytes_per_token": model.kv_bytes_per_token,
        "kv_bytes_at_longest_context": model.kv_bytes(model.context_tokens),
    }
    if as_json:
        content = model.model_dump(mode="json", exclude_none=True) | {"derived": derived}
        click.echo(json.dumps({"schema_version": 1, "model": content}, allow_nan=False))
        return
    out = console()
    _print(out, f"[bold]{escape(model.name)}[/] {escape(model.title)} · {attention(model)}")
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    told = model.model_dump(exclude={"name", "title", "source"}, exclude_none=True)
    for key, value in told.items():
        table.add_row(key, f"{value:,}" if type(value) is int else escape(str(value)))
    for key, size in derived.items():
        table.add_row(f"[dim]{key}[/]", f"[dim]{quantity(size, 'B')}[/]")
    out.print(table)
    _print(out, f"source: {escape(model.source)}")


def attention(model: ModelDescriptor) -> str:
    """What kind of model it is, in words."""
    parts = [f"{model.experts_per_token} of {model.experts} experts" if model.experts else "dense"]
    if model.kv_lora_rank:
        parts.append("latent attention")
    elif model.kv_heads < model.attention_heads:
        parts.append("grouped queries")
    if model.window_layers:
        parts.append(f"window in {model.window_layers} of {model.layers} layers")
    return ", ".join(parts)


def quantity(value: float, unit: str) -> str:
    """A number with its unit and a prefix that reads well; prices and counts have none."""
    if unit in ("1", "count"):
        return f"{value:g}"
    if unit.startswith("USD"):
        return f"{value:,.2f} {unit}" if value < 100 else f"{value:,.0f} {unit}"
    scales = SMALL if unit == "s" else PREFIXES
    scale, prefix = next((s for s in scales if abs(value) >= s[0]), (1.0, ""))
    scaled = value / scale
    text = f"{scaled:.4g}" if scaled else number(0)
    return f"{text} {prefix}{unit}"


def _print(out: Console, text: str) -> None:
    out.print(text, soft_wrap=True)
