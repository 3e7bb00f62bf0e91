"""A trace on the command line: ``KIND[,key=value…]`` of a generator, or ``PATH[,key=value…]``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wattbench.core.errors import OptionError, UsageError, did_you_mean
from wattbench.plugins import option, parse_options, parse_spec
from wattbench.traces.derive import first, like, scaled, sliced
from wattbench.traces.formats import Format
from wattbench.traces.generate import diurnal_trace, gamma_trace, poisson_trace
from wattbench.traces.lengths import FixedLengths, Lengths, LengthsOf, LognormalLengths
from wattbench.traces.read import read_trace
from wattbench.traces.record import Trace
from wattbench.traces.talk import Talk


@dataclass(frozen=True, slots=True, kw_only=True)
class _Generator:
    """Options that all generators have."""

    rate: float = field(metadata={"help": "requests per second in the long run, all turns counted"})
    count: int = option(10_000, "how many requests")
    input: int | None = option(None, "prompt, or the mean of prompts [tokens]")
    output: int | None = option(None, "answer, or the mean of answers [tokens]")
    sigma: float = option(0.0, "scatter of lengths: standard deviation of their logarithm")
    lengths: str | None = option(None, "a trace file whose lengths are drawn instead")
    turns: float = option(1.0, "mean turns of a session")
    think_s: float = option(0.0, "mean pause before a later turn [s]")
    prefix: int = option(0, "system prompt on top of each session [tokens]")
    prefix_groups: int = option(1, "how many different system prompts")
    block_tokens: int = option(16, "text in a block of the prefix cache [tokens]")
    seed: int = option(0, "makes everything")

    def __post_init__(self) -> None:
        given = [key for key in ("input", "output") if getattr(self, key) is not None]
        if self.lengths is not None and (given or self.sigma):
            raise ValueError(f"lengths={self.lengths!r} has them; drop {(given or ['sigma'])[0]}=…")
        if self.lengths is None and len(given) < 2:
            raise ValueError(
                "needs input=… and output=…, as in input=1000,output=200, or lengths=PATH"
            )

    def drawn(self) -> Lengths:
        """The lengths."""
        if self.lengths is not None:
            return LengthsOf(trace=read_trace(self.lengths))
        assert self.input is not None
        assert self.output is not None
        if self.sigma == 0:
            return FixedLengths(input_tokens=self.input, output_tokens=self.output)
        return LognormalLengths(
            input_tokens=self.input, output_tokens=self.output, sigma_ratio=self.sigma
        )

    def talk(self) -> Talk:
        """What requests have in common."""
        return Talk(
            mean_turns_count=self.turns,
            think_s=self.think_s,
            prefix_tokens=self.prefix,
            prefix_groups=self.prefix_groups,
            block_tokens=self.block_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Poisson(_Generator):
    """Independent arrivals."""

    def trace(self) -> Trace:
        """The trace."""
        return poisson_trace(self.rate, self.count, self.drawn(), self.seed, talk=self.talk())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gamma(_Generator):
    """Arrivals in bursts, or more even than at random."""

    cv: float = option(2.0, "standard deviation of the gaps over their mean; 1 is poisson")

    def trace(self) -> Trace:
        """The trace."""
        return gamma_trace(
            self.rate, self.count, self.drawn(), self.seed, cv_ratio=self.cv, talk=self.talk()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Diurnal(_Generator):
    """A rate that goes through a day."""

    peak_to_mean: float = option(2.0, "highest rate over the mean one")
    period_s: float = option(86_400.0, "length of a day [s]")

    def trace(self) -> Trace:
        """The trace."""
        return diurnal_trace(
            self.rate,
            self.count,
            self.drawn(),
            self.seed,
            peak_to_mean_ratio=self.peak_to_mean,
            period_s=self.period_s,
            talk=self.talk(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """Options of a file, applied in this order."""

    format: Format | None = option(None, "what the file is; recognised by its columns")
    seed: int = option(0, "of jitter and of resampling")
    start_s: float | None = option(None, "leave out what comes before [s]")
    end_s: float | None = option(None, "leave out what comes from then on [s]")
    first: int | None = option(None, "only so many requests")
    like: int | None = option(None, "so many requests that come like these")
    rate: float = option(1.0, "arrivals so many times as fast")
    time: float = option(1.0, "times and pauses multiplied by this")


GENERATORS: dict[str, type[_Generator]] = {
    "poisson": _Poisson,
    "gamma": _Gamma,
    "diurnal": _Diurnal,
}


OPTIONS: dict[str, type[Any]] = {**GENERATORS, "PATH": _File}
"""What each kind of spec may have, for listings."""


def trace_from_spec(text: str, *, seed: int = 0, folder: Path = Path()) -> Trace:
    """The trace that a text of the command line means.

    Args:
        text: A generator or a path, with options.
        seed: Added to the seed of the text.
        folder: What paths are relative to.

    Example:
        >>> len(trace_from_spec("poisson,rate=20,count=100,input=1000,output=200,seed=1"))
        100

    Raises:
        UsageError: For an unknown generator or option, an impossible value or a bad file.
    """
    if _is_file(folder, text):
        return read_trace(str(folder / text), seed=seed)
    spec = parse_spec(text)
    if spec.name not in GENERATORS and not _is_file(folder, spec.name):
        hint = did_you_mean(spec.name, list(GENERATORS))
        raise UsageError(
            f"{spec.name!r} is no trace file and no generator{hint} (there are "
            f"{', '.join(GENERATORS)}; or the path of a trace)"
        )
    try:
        if spec.name in GENERATORS:
            options = parse_options(spec, GENERATORS[spec.name])
            lengths = None if options.lengths is None else str(folder / options.lengths)
            options = replace(options, seed=options.seed + seed, lengths=lengths)
            return options.trace()  # type: ignore[no-any-return]
        options = parse_options(spec, _File)
        return _from_file(str(folder / spec.name), replace(options, seed=options.seed + seed))
    except ValueError as error:
        raise OptionError(f"{spec.name}: {error}") from error


def _is_file(folder: Path, text: str) -> bool:
    try:
        return (folder / text).is_file()
    except (OSError, ValueError):
        return False


def _from_file(path: str, options: _File) -> Trace:
    trace = read_trace(path, options.format, seed=options.seed)
    if options.start_s is not None or options.end_s is not None:
        end_s = float("inf") if options.end_s is None else options.end_s
        trace = sliced(trace, options.start_s or 0.0, end_s)
    if options.first is not None:
        trace = first(trace, options.first)
    if options.like is not None:
        trace = like(trace, options.like, options.seed)
    if (options.rate, options.time) != (1.0, 1.0):
        trace = scaled(trace, rate_ratio=options.rate, time_ratio=options.time)
    return trace
