"""The public names, and the modules that importing them loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import costroute_rt

HEAVY = ("numpy", "onnxruntime", "PIL", "tokenizers", "click", "importlib.metadata", "torch")


def loaded_by(code: str) -> set[str]:
    """The heavy modules that a new interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    return set(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    baseline = loaded_by("pass")
    assert loaded_by("import costroute_rt, costroute_rt.error; costroute_rt.BudgetError; costroute_rt.shipped_bundle()") == baseline


def test_the_runtime_class_loads_no_inference_library() -> None:
    assert not {"onnxruntime", "torch", "click", "PIL"} & loaded_by("from costroute_rt import Runtime, Result, read_settings")


@pytest.mark.parametrize("name", costroute_rt.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(costroute_rt, name) is not None
    assert name in dir(costroute_rt)


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Runtme'"):
        costroute_rt.Runtme  # noqa: B018
