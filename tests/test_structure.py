"""What holds the code together: one-way imports, fences, units in names, small files.

Each rule is a function of a folder, so that a planted violation can show that it bites.
"""

from __future__ import annotations

import ast
import graphlib
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wattbench"
Rule = Callable[[Path], list[str]]

ALLOWED: Mapping[str, Set[str]] = {
    "wattbench": {"frames", "routing", "simulation", "traces"},
    "exports": {"core", "metrics", "results", "frames", "interchange"},
    "core": set(),
    "documents": {"core"},
    "stats": {"core"},
    "energy": {"core"},
    "plugins": {"core"},
    "traces": {"core", "plugins"},
    "workload": {"core", "documents", "traces"},
    "hardware": {"core", "documents"},
    "openai_api": {"core"},
    "emulator": {"core", "hardware", "plugins", "openai_api"},
    "serving": {"core", "openai_api"},
    "backends": {"core", "plugins", "hardware", "emulator", "interchange"},
    "meters": {"core", "plugins", "hardware", "emulator", "energy", "interchange", "store"},
    "store": {"core"},
    "interchange": {"core", "documents"},
    "metrics": {"core", "energy", "stats"},
    "checks": {"core", "energy", "stats", "metrics"},
    "results": {"core", "energy", "stats", "metrics", "checks"},
    "search": {"core"},
    "tpf": {"core", "stats", "documents", "hardware"},
    "economics": {"core", "stats", "documents", "hardware", "tpf"},
    "routing": {"core", "stats", "plugins", "hardware", "tpf"},
    "simulation": {"core", "stats", "documents", "hardware", "plugins", "routing", "traces"},
    "comparison": {"core", "energy", "stats", "metrics", "results"},
    "frames": {"core", "store", "metrics", "results"},
    "audit": {"core", "energy", "stats", "metrics", "results"},
    "runner": {"core", "stats", "workload", "hardware", "__version__"},
    "plots": {"core", "energy", "stats", "metrics", "checks", "results"},
    "testing": {"core", "energy", "plugins"},
}
"""What each unit may import, itself apart. A unit is the first part of a path below the package;
``wattbench`` is the package's own ``__init__``, ``__version__`` the one name taken from it. The
command line is not in the table: it wires everything, and nothing may import it."""

WIRES_ALL = {"cli", "__main__"}

FENCES: Mapping[str, Set[str]] = {
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "matplotlib": {"plots"},
    "click": {"cli"},
    "rich": {"cli"},
    "aiohttp": {"backends", "emulator", "meters", "openai_api", "serving"},
    "pydantic": {"documents", "workload", "hardware", "interchange", "economics", "simulation"},
    "yaml": {"documents", "workload", "hardware", "exports"},
    "openvino": {"backends"},
    "openvino_genai": {"backends"},
    "gguf": {"backends"},
    "tokenizers": {"backends"},
    "torch": {"backends"},
    "transformers": {"backends"},
    "pynvml": {"meters"},
    "amdsmi": {"meters"},
    "zeus": {"meters"},
    "codecarbon": {"meters"},
}
"""Which units may import a third party; one that is not named here is free."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

UNIT = re.compile(
    r"_s$|(^|_)(joules|watts|hz|bytes|tokens|usd|gco2e|fractions?|ratio|count|flops)$|_per_\w+$"
)
"""The last word of a name that holds a physical number."""

UNITLESS: Mapping[str, Set[str]] = {
    "the unit is the last word of the metric's name": {
        "core.result.Estimate.value",
        "core.result.Estimate.low",
        "core.result.Estimate.high",
        "core.run.ReportedFigure.value",
        "core.run.stated",
        "interchange.results.fields.Fields.report",
    },
    "the unit is the last word of the name that holds the band": {
        "tpf.bands.Band.value",
        "tpf.bands.Band.low",
        "tpf.bands.Band.high",
        "tpf.bands.Band.times.factor",
        "tpf.bands.exactly.value",
        "tpf.bands.from_draws.value",
    },
    "the unit is the last word of the scenario's key": {
        "economics.quantity.Quantity.value",
        "economics.quantity.Quantity.low",
        "economics.quantity.Quantity.high",
    },
    "a field of another tool's file, whose unit its reader knows": {
        "interchange.results.fields.Fields.number",
        "interchange.results.fields.Fields.numbers",
    },
    "the unit stands beside it, in the figure of the profile": {
        "hardware.profile.Figure.value",
        "hardware.profile.Figure.low",
        "hardware.profile.Figure.high",
        "hardware.profile.MachineProfile.need",
    },
    "watts or joules, as the domain's quantity says": {
        "core.protocols.TraceSink.sample.value",
        "core.protocols.RecordSink.samples.value",
        "store.writer.StoreWriter.samples.value",
        "energy.cleaning.values_of",
        "meters.agent_wire.samples_message",
        "meters.agent_wire.samples_message.buffered",
        "meters.polling.Reading.value",
        "testing.MemorySink.values",
        "testing.MemorySink.sample.value",
        "interchange.channel.LoggedChannel.value",
        "interchange.channel.Cell.reading",
    },
    "zones are hours away from UTC": {"meters.external.ExternalOptions.utc_offset_hours"},
    "an array of any unit, packed for its column": {
        "store.codec.pack_values.value",
        "store.codec.unpack",
    },
    "mathematics: the unit is that of the values given": {
        "stats.quantile.values",
        "stats.spread_of.values",
        "stats.combined_interval",
        "stats.combined_interval.value",
        "stats.additive_interval",
        "stats.additive_interval.value",
        "stats.additive_interval.uniform_half_widths",
        "stats.additive_interval.normal_sd",
    },
    "the parameter of a distribution, as its formula names it": {
        "stats.Spread.scale",
        "workload.lengths.Lognormal.median",
        "workload.lengths.Lognormal.sigma",
        "workload.arrivals.GammaLoop.burstiness",
        "workload.arrivals.TraceLoop.time_scale",
    },
    "the unit is the metric's": {
        "metrics.table.MetricSpec.of",
        "comparison.Difference.first",
        "comparison.Difference.second",
    },
    "the key of each parameter ends in its unit": {
        "emulator.faults.FaultKind.ranges",
        "emulator.faults.Fault.parameters",
        "emulator.faults.Fault.__getitem__",
    },
    "reading over truth, a pure number": {"emulator.sensors.SensorOptions.gain"},
    "in whatever unit the exporter gives it": {
        "meters.http_page.PageReader.query_result",
        "meters.prometheus.PrometheusOptions.scale",
        "interchange.prometheus_text.Sample.value",
    },
    "two quantities at once": {"emulator.timeline.Timeline.steps"},
    "seconds or joules, as the lane says": {
        "routing.step.knots.",
        "routing.step.interpolated.",
        "routing.step.affine.",
        "routing.step.Lane.",
    },
    "the unit is that of what holds the series": {"routing.fleet.Series."},
    "kernels, whose names are their formulas'": {
        "routing.calendar.",
        "routing.choice.",
        "routing.jump.",
        "routing.prompts.",
        "routing.scores.",
        "routing.policies.",
    },
    "the key ends in its unit, or a pure number": {"routing.calibration.StepFit."},
    "seconds or joules as the lane says, or the unit of the scenario's key": {"simulation.parts."},
    "a pure number, by its name in the field": {"routing.fleet.Site.pue"},
}
"""Public numbers whose name does not end in a unit, by the reason why that is right. A name that
ends in a point stands for everything in it."""


@dataclass(frozen=True)
class Import:
    """One import: where it stands, in which unit, and the absolute name that it asks for."""

    place: str
    unit: str
    target: str

    @property
    def top(self) -> str:
        """The top-level package asked for."""
        return self.target.split(".")[0]

    @property
    def needs(self) -> str:
        """For an import of the package itself: the unit asked for."""
        return [*self.target.split("."), "wattbench"][1]


def modules(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Every Python file below a folder, as a path relative to it and a tree."""
    for path in sorted(root.rglob("*.py")):
        yield path.relative_to(root), ast.parse(path.read_text(encoding="utf-8"))


def imports(root: Path) -> Iterator[Import]:
    """Every import below the package's folder, at whatever depth of the code it stands."""
    for path, tree in modules(root):
        unit = "wattbench" if str(path) == "__init__.py" else path.parts[0].removesuffix(".py")
        for node in ast.walk(tree):
            for target in _targets(node, ("wattbench", *path.parts[:-1])):
                yield Import(f"{path}:{getattr(node, 'lineno', 0)}", unit, target)


def _targets(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    """The absolute names that a node imports; ``package`` is the one that it stands in."""
    match node:
        case ast.Import(names=names):
            return [name.name for name in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = package[: len(package) + 1 - level] if level else ()
            source = ".".join([*base, *([module] if module else [])])
            return [f"{source}.{name.name}" for name in names]
        case ast.Call(args=[first, *_]) if ast.unparse(node.func).endswith("import_module"):
            text = first.values[0] if isinstance(first, ast.JoinedStr) else first
            return [str(text.value)] if isinstance(text, ast.Constant) else []
    return []


def wrong_imports(root: Path) -> list[str]:
    """Imports between units that the table does not allow, and units that it does not know."""
    found = []
    for each in imports(root):
        if each.unit in WIRES_ALL:
            continue
        if each.unit not in ALLOWED:
            found.append(f"{each.unit} is a new unit: add it to ALLOWED, on purpose")
        elif each.top == "wattbench" and each.needs not in {each.unit, *ALLOWED[each.unit]}:
            found.append(f"{each.place}: {each.unit} may not import {each.target}")
    return list(dict.fromkeys(found))


def broken_fences(root: Path) -> list[str]:
    """Third parties imported outside the units that they are kept in."""
    return [
        f"{each.place}: {each.top} is only for {', '.join(sorted(FENCES[each.top]))}"
        for each in imports(root)
        if each.top in FENCES and each.unit not in FENCES[each.top]
    ]


def cycles(root: Path) -> list[str]:
    """The first cycle of imports between units, if there is one."""
    needs: dict[str, set[str]] = {}
    for each in imports(root):
        if each.top == "wattbench" and each.needs != each.unit:
            needs.setdefault(each.unit, set()).add(each.needs)
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        return [" → ".join(reversed(error.args[1]))]
    return []


def large_parts(root: Path) -> list[str]:
    """Files and functions, docstrings apart, that nobody takes in at one reading."""
    found = []
    for path, tree in modules(root):
        if "migrations" in path.parts:
            continue
        lines = len((root / path).read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            found.append(f"{path}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = _span(node) - (_span(node.body[0]) if ast.get_docstring(node) else 0)
                if length > MAX_FUNCTION_LINES:
                    found.append(f"{path}:{node.lineno}: {node.name} has {length} lines")
    return found


def _span(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def names_without_unit(root: Path) -> list[str]:
    """Public numbers whose name should end in a unit and does not."""
    return [
        f"{place}: {name} holds a number; end its name in the unit"
        for place, name in physical_names(root)
        if not (UNIT.search(name.rpartition(".")[2]) or _excepted(name))
    ]


def _excepted(name: str) -> bool:
    exceptions = {each for names in UNITLESS.values() for each in names}
    return name in exceptions or any(
        f"{name}.".startswith(each) for each in exceptions if each.endswith(".")
    )


def physical_names(root: Path) -> Iterator[tuple[str, str]]:
    """Every public name that holds floats: where it stands, and ``module.Class.name``.

    The command line and the plots stand apart: they convert to what a reader wants to see.
    """
    trees = {path: tree for path, tree in modules(root) if path.parts[0] not in ("cli", "plots")}
    floats = _names_of_float(list(trees.values()))
    for path, tree in trees.items():
        module = ".".join(path.with_suffix("").parts)
        for owner, name, annotation in _annotated(tree.body, module):
            if _holds_floats(annotation, floats):
                yield f"{path}:{annotation.lineno}", f"{owner}.{name}"


def _annotated(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, str, ast.expr]]:
    """Fields, arguments and returns of the public names of a module or class."""
    for node in body:
        match node:
            case ast.ClassDef(name=name) if _public(name):
                yield from _annotated(node.body, f"{owner}.{name}")
            case ast.AnnAssign(target=ast.Name(id=name)) if _public(name):
                yield owner, name, node.annotation
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if _public(name):
                if node.returns:
                    yield owner, name, node.returns
                inside = f"{owner}.{name}".removesuffix(".__init__")
                for each in ast.walk(node.args):
                    if isinstance(each, ast.arg) and each.annotation:
                        yield inside, each.arg, each.annotation


def _public(name: str) -> bool:
    return name.startswith("__") or not name.startswith("_")


def _names_of_float(trees: list[ast.Module]) -> set[str]:
    """``float`` and whatever the modules define as another name for one or more of them."""
    floats, before = {"float", "float32", "float64"}, set[str]()
    while floats != before:
        before = set(floats)
        for node in (node for tree in trees for node in tree.body):
            match node:
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=value)
                    | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                ) if _holds_floats(value, floats):
                    floats.add(name)
    return floats


def _holds_floats(annotation: ast.expr, floats: Set[str]) -> bool:
    """Whether an annotation stands for one or more floats; a function of floats does not."""
    match annotation:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in floats
        case ast.BinOp(op=ast.BitOr()):
            texts = {"str", "bytes"} & set(ast.unparse(annotation).split(" | "))
            sides = (annotation.left, annotation.right)
            return not texts and any(_holds_floats(side, floats) for side in sides)
        case ast.Subscript(value=outer, slice=inner):
            if ast.unparse(outer).split(".")[-1] in ("Callable", "Literal"):
                return False
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return any(_holds_floats(part, floats) for part in parts)
    return False


RULES: list[Rule] = [wrong_imports, broken_fences, cycles, large_parts, names_without_unit]


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    """Nothing in ``wattbench`` breaks a rule of its structure."""
    found = rule(PACKAGE)
    assert not found, "\n".join(found)


VIOLATIONS: list[tuple[Rule, dict[str, str], str]] = [
    (wrong_imports, {"checks.py": "import wattbench.emulator"}, "checks.py:1: checks may not"),
    (wrong_imports, {"stats.py": "from wattbench import emulator"}, "stats may not"),
    (wrong_imports, {"stats.py": "import wattbench"}, "stats may not import wattbench"),
    (wrong_imports, {"store/a.py": "from wattbench import __version__"}, "store may not"),
    (wrong_imports, {"core/a.py": "from ..energy import add"}, "import wattbench.energy.add"),
    (wrong_imports, {"core/__init__.py": "from .. import energy"}, "import wattbench.energy"),
    (wrong_imports, {"core/a/b.py": "from ...stats import quantile"}, "core may not"),
    (wrong_imports, {"__init__.py": "from wattbench.results import evaluate"}, "wattbench may not"),
    (wrong_imports, {"energy/a.py": "def f():\n    from wattbench.metrics import x"}, "a.py:2"),
    (wrong_imports, {"core/a.py": "if TYPE_CHECKING:\n    import wattbench.store"}, "a.py:2"),
    (wrong_imports, {"plots/a.py": "importlib.import_module('wattbench.store')"}, "plots may not"),
    (wrong_imports, {"core/a.py": "import_module(f'wattbench.cli.{name}')"}, "wattbench.cli"),
    (wrong_imports, {"novel/a.py": "import wattbench.core"}, "novel is a new unit: add it to"),
    (broken_fences, {"cli/a.py": "import sqlalchemy.orm as orm"}, "sqlalchemy is only for store"),
    (broken_fences, {"results.py": "def f():\n    from rich.table import Table"}, "results.py:2"),
    (broken_fences, {"core/a.py": "if TYPE_CHECKING:\n    from pydantic import Field"}, "a.py:2"),
    (cycles, {"a.py": "import wattbench.b", "b.py": "from . import a"}, "a → b → a"),
    (
        cycles,
        {"a.py": "def f():\n    import wattbench.b.c", "b/c.py": "from ..a import x"},
        "a → b",
    ),
    (large_parts, {"a.py": "x = 1\n" * MAX_FILE_LINES}, "a.py: 401 lines"),
    (large_parts, {"a.py": "def f():\n" + "    x = 1\n" * 60}, "a.py:1: f has 61 lines"),
]


@pytest.mark.parametrize(("rule", "sources", "complaint"), VIOLATIONS)
def test_a_rule_finds_what_breaks_it(
    tmp_path: Path, rule: Rule, sources: dict[str, str], complaint: str
) -> None:
    """A planted violation is found once, at its place."""
    _plant(tmp_path, {"core/z.py": "import numpy"} | sources)
    (found,) = rule(tmp_path)
    assert complaint in found


def test_every_public_number_without_unit_is_found(tmp_path: Path) -> None:
    """Fields, arguments and returns are found in every spelling of a number."""
    source = """
    Positive = Annotated[float, Field(gt=0)]
    class A:
        field: float
        array: NDArray[np.float64]
        alias: tuple[Positive, ...]
        def __init__(self, init: float | None, *many: float) -> None: ...
        @property
        def value(self) -> dict[str, float]: ...
    async def wait(first: int, *, timeout: Sequence[float] = ()) -> Iterator[np.float64]: ...
    """
    _plant(tmp_path, {"a.py": textwrap.dedent(source)})
    expected = "A.field A.array A.alias A.init A.many A.value wait wait.timeout"
    assert [name for _, name in physical_names(tmp_path)] == [f"a.{n}" for n in expected.split()]
    assert len(names_without_unit(tmp_path)) == len(expected.split())


def test_rules_leave_alone_what_is_right(tmp_path: Path) -> None:
    """What looks like a violation and is none passes every rule."""
    sources = {
        "cli/a.py": "import click\nfrom wattbench import __version__, store\nwidth: float = 1.0",
        "runner/a.py": "from wattbench import __version__\nfrom . import b\nfrom ..core import c",
        "store/migrations/0001.py": "x = 1\n" * 500,
        "core/a.py": 'def f():\n    """' + "Long.\n" * 80 + '    """\n' + "    x = 1\n" * 59,
        "stats.py": "class A:\n    _mean: float\n    value: Callable[[float], float]\n"
        "    json: None | float | str\n    note: str\n    fraction: float\n    itl_s: float\n"
        "    def _scale(self, factor: float) -> float: ...\n"
        "    def rate_per_s(self) -> float: ...\n",
    }
    _plant(tmp_path, sources)
    assert [rule(tmp_path) for rule in RULES] == [[]] * len(RULES)


def test_the_tables_allow_no_cycle() -> None:
    """Units import one way only, whatever of the table is used."""
    order = list(graphlib.TopologicalSorter(ALLOWED).static_order())
    assert not WIRES_ALL & set(order)
    assert set(order) == {*ALLOWED, "__version__"}


def test_unitless_names_are_few_and_in_use() -> None:
    """The exceptions to units in names are short, and none outlives the name it was made for."""
    exceptions = {name for names in UNITLESS.values() for name in names}
    assert len(exceptions) <= 74
    names = [f"{name}." for _, name in physical_names(PACKAGE)]
    assert not [each for each in exceptions if not any(n.startswith(each) for n in names)]


def _plant(root: Path, sources: Mapping[str, str]) -> None:
    for path, source in sources.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(source + "\n", encoding="utf-8")
