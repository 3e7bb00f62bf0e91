"""What-ifs with a source: how far published levers moved joules, rate and quality.

A lever is a multiplier at a fixed service level. It holds for the set-up that it was measured on;
elsewhere it is ``modelled`` with the band given. One whose cost in quality was not published
cannot pass a quality floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wattbench.core.errors import UsageError, did_you_mean
from wattbench.tpf.bands import Band
from wattbench.tpf.published import H100_LOGISTIC


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One published change.

    Attributes:
        name: What it is called here.
        about: What is changed.
        energy_ratio: Joules per token after over before; e_tok.
        flops_ratio: Compute per token after over before; c_tok.
        quality_change_fraction: Published accuracy after minus before, as parts of 1; None
            if it was not published.
        source: Where, and on what.
    """

    name: str
    about: str
    energy_ratio: Band
    flops_ratio: Band
    quality_change_fraction: float | None
    source: str


def _band(value: float, low: float, high: float) -> Band:
    """A published ratio; the ends that its source does not give are this project's."""
    return Band(value=value, low=low, high=high, kind="modelled")


def _guess(value: float, low: float, high: float) -> Band:
    """A ratio that nobody published."""
    return Band(value=value, low=low, high=high, kind="assumed")


_SAME = _band(1.0, 1.0, 1.0)
_HALF_WINDOW = H100_LOGISTIC.tokens_per_joule(8192) / H100_LOGISTIC.tokens_per_joule(4096)

LEVERS = (
    Lever(
        name="int4-weights",
        about="GPTQ weights of 4 bit in place of 16, one request at a time",
        energy_ratio=_band(0.44, 0.39, 0.55),
        flops_ratio=_SAME,
        quality_change_fraction=-0.04,
        source="ModeSwitch-LLM, arXiv 2605.23057: 3.989 to 1.770 J/output token, Llama 3.1 8B, "
        "A100; GSM8K .83 to .79. Ratios of its seven workloads: .39 to .55",
    ),
    Lever(
        name="speculative",
        about="speculative decoding, one request at a time",
        energy_ratio=_band(0.41, 0.35, 0.8),
        flops_ratio=_guess(1.3, 1.0, 2.0),
        quality_change_fraction=-0.01,
        source="ModeSwitch-LLM, arXiv 2605.23057: 3.628 to 1.496 J/output token on GSM8K, accuracy "
        ".83 to .82; its gain falls as the batch grows",
    ),
    Lever(
        name="fp8",
        about="8-bit floating point in place of 16",
        energy_ratio=_band(0.70, 0.6, 0.9),
        flops_ratio=_SAME,
        quality_change_fraction=None,
        source="TokenPowerBench, arXiv 2512.03024: 30 % less of a 405B model on 16 H100; saves "
        "only where compute binds (arXiv 2601.22362)",
    ),
    Lever(
        name="prefix-cache",
        about="4-bit weights and one cached prefix, where prompts share it",
        energy_ratio=_band(0.32, 0.3, 0.5),
        flops_ratio=_guess(0.8, 0.5, 1.0),
        quality_change_fraction=None,
        source="ModeSwitch-LLM, arXiv 2605.23057: 4.201 to 1.359 J/output token, shared prefix",
    ),
    Lever(
        name="kv-compression",
        about="half the bytes of keys and values, so twice the users where they fill memory",
        energy_ratio=_band(_HALF_WINDOW, _HALF_WINDOW, 1.0),
        flops_ratio=_SAME,
        quality_change_fraction=None,
        source="computed from The 1/W Law, arXiv 2603.17280: 8.97 to 17.62 tokens/J as the window "
        "of 8K is halved; nothing is gained where memory has room",
    ),
    Lever(
        name="sparse-attention",
        about="every token attends to half of its context",
        energy_ratio=_guess(0.8, _HALF_WINDOW, 1.0),
        flops_ratio=_guess(0.9, 0.6, 1.0),
        quality_change_fraction=None,
        source="bounded by The 1/W Law, arXiv 2603.17280: at best as if the window were halved; no "
        "joules of it are published",
    ),
    Lever(
        name="mode-routing",
        about="each request to the mode that suits it, by rules, one request at a time",
        energy_ratio=_band(0.48, 0.44, 0.8),
        flops_ratio=_SAME,
        quality_change_fraction=0.0017,
        source="ModeSwitch-LLM, arXiv 2605.23057: 0.48 of the energy of FP16 over 605 workloads, "
        "accuracy +0.17 points; an oracle reaches 0.45",
    ),
    Lever(
        name="clock-lock",
        about="clock of the compute units held at its most frugal while decoding",
        energy_ratio=_band(0.75, 0.68, 0.95),
        flops_ratio=_SAME,
        quality_change_fraction=0.0,
        source="arXiv 2605.11999: up to 32 % less on an H200 while decoding; a power cap does "
        "nothing there. Arithmetic is the same, so are the answers",
    ),
    Lever(
        name="engine-upgrade",
        about="two years of a serving engine, at batch 64",
        energy_ratio=_band(0.59, 0.5, 0.85),
        flops_ratio=_SAME,
        quality_change_fraction=None,
        source="ML.ENERGY: vLLM 0.5.4 to 0.11.1, .20 to .12 J/output token at batch 64",
    ),
)


def find_levers(names: Sequence[str]) -> list[Lever]:
    """Levers by name.

    Raises:
        UsageError: If there is none of a name, or one is named twice.
    """
    known = {lever.name: lever for lever in LEVERS}
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no lever {name!r}{did_you_mean(name, list(known))}; there are "
                f"{', '.join(known)}"
            )
    if len(set(names)) < len(names):
        raise UsageError(f"a lever is named twice: {', '.join(names)}")
    return [known[name] for name in names]


def quality_after_fraction(
    quality_fraction: float | None, levers: Sequence[Lever], floor_fraction: float | None
) -> float | None:
    """Quality with some levers pulled; None if it is unknown.

    Raises:
        UsageError: If it is below the floor, or unknown while there is one.
    """
    after, unknown = quality_fraction, "the quality of the model is not given (--quality)"
    for lever in levers:
        if after is not None and lever.quality_change_fraction is None:
            after, unknown = None, f"what lever {lever.name!r} costs in quality was not published"
        elif after is not None and lever.quality_change_fraction is not None:
            after += lever.quality_change_fraction
    if floor_fraction is None:
        return after
    if after is None:
        raise UsageError(f"the floor of {floor_fraction:g} cannot be shown to hold: {unknown}")
    if after < floor_fraction:
        raise UsageError(
            f"quality {after:.3g} is below the floor of {floor_fraction:g}: tokens below it do "
            f"not count"
        )
    return after
