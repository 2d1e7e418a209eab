"""Fixtures of the runtime's tests: a runtime on fake engines and a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from tests.runtime.fakes import FakeDevice, open_fake_runtime


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> Bundle:
    """The tiny bundle, opened."""
    return Bundle.open(tiny_bundle)


@pytest.fixture
def device(bundle: Bundle) -> FakeDevice:
    """A runtime whose calls take exactly the profiled time."""
    return open_fake_runtime(bundle)


@pytest.fixture
def open_device(bundle: Bundle) -> Callable[..., FakeDevice]:
    """`open_fake_runtime` on the tiny bundle."""

    def opened(**arguments: object) -> FakeDevice:
        return open_fake_runtime(bundle, **arguments)  # type: ignore[arg-type]

    return opened
