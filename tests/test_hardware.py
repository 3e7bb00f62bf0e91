"""Machine profiles: what is shipped, how it is shown, and how fast the SRAM machines come out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from command import called

from wattbench.core.errors import DocumentError, UsageError
from wattbench.hardware import load_model, load_profile, profile_names, roofline
from wattbench.hardware.profile import Evidence, Figure
from wattbench.meters.nameplate import NameplateMeter, NameplateOptions
from wattbench.plugins import PluginContext

GOLDEN = Path(__file__).parent / "data" / "show_hardware_h200-sxm.txt"
UNITS = {
    "compute.dense_peak": "FLOP/s",
    "memory.bandwidth": "B/s",
    "memory.capacity": "B",
    "link.bandwidth_one_way": "B/s",
    "power": "W",
    "serving.concurrency": "count",
}
SPARSE_FACTOR = 2.1
TRUE_EXCEPTIONS = {
    ("b300-sxm", "fp4"): "its fp4 units were widened",
    ("rtx-5090", "fp8"): "its bf16 rate is halved where it accumulates in fp32",
}
"""Dense peaks of more than twice the next wider format, and why they are true none the less."""


def figures(name: str) -> dict[str, Figure]:
    return dict(load_profile(name).figures())


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_is_whole(name: str) -> None:
    """It names itself; no figure is zero, or better known than its kind can be."""
    profile = load_profile(name)
    found = figures(name)
    assert profile.name == name
    for place, figure in found.items():
        assert figure.value > 0, place
        for start, unit in UNITS.items():
            assert not place.startswith(start) or figure.unit == unit, place
        if figure.evidence == "assumed" and place.startswith("power.anchors"):
            assert figure.low is not None, f"{place}: an assumption without a range"


@pytest.mark.parametrize("name", profile_names())
def test_no_sparse_peak_is_given_as_dense(name: str) -> None:
    """Half the bits compute at most about twice as fast."""
    peaks = load_profile(name).compute.dense_peak
    for wide, narrow in (("bf16", "fp8"), ("fp8", "fp4")):
        if wide in peaks and narrow in peaks:
            suspicious = peaks[narrow].value > SPARSE_FACTOR * peaks[wide].value
            assert suspicious == ((name, narrow) in TRUE_EXCEPTIONS), narrow


def test_provisioned_power_excludes_the_facility() -> None:
    """The set of 2026, watts per accelerator, not that of 2025 with the facility inside."""
    expected = {
        "h100-sxm": 1370,
        "h200-sxm": 1370,
        "b200-sxm": 1710,
        "b300-sxm": 1900,
        "gb200-nvl72": 1870,
        "mi300x": 1390,
        "mi325x": 1690,
        "mi355x": 2090,
        "tpu-v7": 1207,
    }
    key = "node.provisioned_power_per_accelerator"
    found = {name: figures(name)[key].value for name in profile_names() if key in figures(name)}
    assert found == expected


SERVED = [
    ("cerebras-cs3", "llama-3.1-8b", None, 2000.0),
    ("cerebras-cs3", "gpt-oss-120b", None, 2059.0),
    ("cerebras-cs3", "glm-4.7", None, 1201.0),
    ("cerebras-cs3", "llama-3.1-70b", None, 2100.0),
    ("cerebras-cs3", "llama-3.1-405b", None, 969.0),
    ("groq-lpu", "llama-3.1-8b", "int8", 751.0),
    ("groq-lpu", "llama-3.1-70b", "int8", 250.0),
    ("sambanova-sn40l", "deepseek-v3", None, 198.0),
]
"""Published tokens per second of one user, of which each profile names the source."""


@pytest.mark.parametrize(("machine", "model", "precision", "tokens_per_s"), SERVED)
def test_a_machine_is_as_fast_as_it_is_served(
    machine: str, model: str, precision: str | None, tokens_per_s: float
) -> None:
    """Within the 20 % that the profiles state."""
    shape = load_model(model)
    if precision is not None:
        shape = shape.model_copy(update={"precision": precision})
    step = roofline(load_profile(machine), shape).step(1, 1000, 1000)
    assert 1 / step.duration_s == pytest.approx(tokens_per_s, rel=0.20)


def test_a_model_left_out_of_the_fit_comes_out_as_served() -> None:
    """DeepSeek V3 on CS-3: 1,350 tokens/s of one user, with weights of 8 bit."""
    shape = load_model("deepseek-v3").model_copy(update={"compute_precision": "fp16"})
    step = roofline(load_profile("cerebras-cs3"), shape).step(1, 1000, 1000)
    assert 1 / step.duration_s == pytest.approx(1350, rel=0.20)


@pytest.mark.parametrize("name", ["cerebras-cs3", "groq-lpu", "sambanova-sn40l"])
def test_concurrency_of_an_sram_machine_is_told(name: str) -> None:
    """Where it is unpublished, as a range from one user up."""
    figure = figures(name)["serving.concurrency"]
    if figure.evidence == "assumed":
        assert (figure.low, figure.high) != (None, None)
        assert figure.low == 1


def test_machines_without_evidence_are_not_emulated() -> None:
    """What nobody measured under load has no anchors, and the error says what is missing."""
    with pytest.raises(UsageError, match=r"'mi300x' has no power anchors"):
        roofline(load_profile("mi300x"), load_model("llama-3.1-8b"))
    with pytest.raises(UsageError, match=r"has no compute\.dense_peak\.fp8"):
        roofline(load_profile("a100-sxm-80"), load_model("deepseek-v3"))


@pytest.mark.parametrize(
    ("name", "lacking"), [("amd-xdna2-npu", "no power:"), ("sambanova-sn40l", "no power.tdp")]
)
def test_a_machine_of_unknown_power_has_no_nameplate(name: str, lacking: str) -> None:
    """Watts that nobody published cannot bound a joule."""
    context = PluginContext(hardware=load_profile(name), seed=1)
    with pytest.raises(UsageError, match=f"{name}.* has {lacking}"):
        NameplateMeter(NameplateOptions(), context)


def test_a_profile_is_shown_figure_by_figure() -> None:
    """Value, range, evidence and the number of the source, as kept in ``tests/data``."""
    shown = called("show", "hardware", "h200-sxm")
    assert shown.stdout.splitlines() == GOLDEN.read_text().splitlines()


@pytest.mark.parametrize("name", [*profile_names(), "local-cpu"])
def test_every_profile_can_be_shown(name: str) -> None:
    """As a table that tells every source, and as JSON that is the profile."""
    text = called("show", "hardware", name).stdout
    shown = json.loads(called("show", "hardware", name, "--json").stdout)["hardware"]
    assert shown["name"] == name
    assert text.startswith(name)
    if name != "local-cpu":
        for place, figure in figures(name).items():
            assert place in text
            assert figure.source in text


def test_lists_say_how_power_is_known() -> None:
    """Measured, modelled, nameplate or assumed under load; nothing where nobody published it."""
    rows = json.loads(called("list", "hardware", "--json").stdout)["hardware"]
    known = {row["name"]: row["power"] for row in rows}
    assert set(known.values()) == {*get_args(Evidence), None}
    told = [known[n] for n in ("h200-sxm", "h100-sxm", "mi300x", "tpu-v7", "apple-m4")]
    assert told == ["measured", "modelled", "nameplate", "assumed", None]
    models = json.loads(called("list", "models", "--json").stdout)["models"]
    kinds = {row["name"]: row["kind"] for row in models}
    assert kinds["deepseek-v3"] == "8 of 256 experts, latent attention"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("hardware",), "show hardware needs a NAME; `wattbench list hardware` has them"),
        (("model",), "show model needs a NAME; `wattbench list models` has them"),
        (("latest", "h200-sxm"), "'h200-sxm' after 'latest': one selector"),
        (("hardware", "h200"), "did you mean 'h200-sxm'?"),
        (("model", "lama-3.1-8b"), "did you mean 'llama-3.1-8b'?"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments: tuple[str, ...], complaint: str) -> None:
    """With the way out."""
    refused = called("show", *arguments)
    assert refused.returncode == 2
    assert complaint in refused.stderr


def test_a_figure_in_the_wrong_unit_does_not_load(tmp_path: Path) -> None:
    """Seconds where users are counted."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ntitle: Mine\nvendor: me\ndevice_class: gpu\nserving:\n"
        "  concurrency: {value: 4, unit: s, evidence: assumed, source: nobody, date: 2026-01}\n"
    )
    with pytest.raises(DocumentError, match="unit 's' must be 'count'"):
        load_profile(str(path))
