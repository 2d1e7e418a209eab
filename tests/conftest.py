"""Fixtures shared by all tests: a tiny bundle, and an empty home for the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a complete tiny bundle; tests that change it copy it first."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty COSTROUTE_HOME."""
    path = tmp_path / "home"
    monkeypatch.setenv("COSTROUTE_HOME", str(path))
    return path
