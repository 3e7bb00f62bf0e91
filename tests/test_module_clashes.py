"""Packages that take each other's module: what the doctor says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributions import doctor, install


@pytest.mark.parametrize(
    ("packages", "module", "fix"),
    [
        ((("zeus", "0.16.0"), ("zeus-ml", "0.11.0.post1")), "zeus", "zeus zeus-ml && pip install"),
        ((("Zeus", "0.16.0"), ("zeus_ml", "0.11.0.post1")), "zeus", "zeus zeus-ml && pip install"),
        ((("pynvml", "11.5.3"),), "pynvml", "--force-reinstall nvidia-ml-py"),
    ],
)
def test_a_clash_is_named_with_its_way_out(
    tmp_path: Path, packages: tuple[tuple[str, str], ...], module: str, fix: str
) -> None:
    places = [install(tmp_path / name, name, version) for name, version in packages]
    (clash,) = doctor("cpu-load", *places)["module_clashes"]
    assert clash["module"] == module
    assert fix in clash["fix"]


@pytest.mark.parametrize(
    "package",
    [("zeus", "0.16.0"), ("zeus-ml", "0.11.0.post1"), ("nvidia-ml-py", "99.0"), ("pynvml", "13.0")],
)
def test_one_package_is_no_clash(tmp_path: Path, package: tuple[str, str]) -> None:
    """From version 12 on, pynvml leaves the module to NVIDIA's package."""
    assert doctor("cpu-load", install(tmp_path, *package))["module_clashes"] == []
