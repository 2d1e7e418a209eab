"""W3: no lowest version of a dependency has a known hole that matters here, and what is installed is not older."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import tomllib

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
FIXED = {
    "filelock": (3, 20, 3),  # locks that are links were followed: CVE-2025-68146, CVE-2026-22701
    "onnx": (1, 21),  # external data outside the folder: CVE-2025-51480, CVE-2026-27489, CVE-2026-34446
    "onnxruntime": (1, 24, 1),  # external data outside the folder
    "onnxruntime-gpu": (1, 24, 1),
    "torch": (2, 10),  # loading with weights_only: CVE-2026-24747
    "Pillow": (10, 3),  # CVE-2024-28219
}


def asked() -> list[str]:
    """Every requirement in pyproject.toml."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]


def requirements() -> list[tuple[str, tuple[int, ...]]]:
    """Name and lowest version of everything that this project asks for, without its own extras."""
    pattern = re.compile(r"([\w-]+)(?:>=|==)([\d.]+?)(?:\.\*)?(?:,<[\d.]+)?(?:;.*)?")  # an upper bound and a marker may follow
    found = [pattern.fullmatch(each) for each in asked() if not each.startswith("costroute-rt[")]
    assert all(found), asked()
    return [(each[1], parse(each[2])) for each in found if each]


def parse(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


@pytest.mark.parametrize("name", FIXED)
def test_every_lowest_version_has_the_fix(name: str) -> None:
    lowest = [found for each, found in requirements() if each == name]
    assert lowest, f"nothing asks for {name}"
    assert all(found >= FIXED[name] for found in lowest)


@pytest.mark.parametrize("name", FIXED)
def test_what_is_installed_has_the_fix(name: str) -> None:
    try:
        installed = version(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    assert parse(installed) >= FIXED[name]
