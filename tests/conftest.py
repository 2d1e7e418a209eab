"""Fixtures shared by all tests: a tiny bundle, and an empty home for the store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from costroute_rt.engines.store.store import Store
from tests.pools import write_other_bundle, write_pool_of, write_twin_bundle
from tests.tiny_bundle import write_tiny_bundle

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some tests import ONNX Runtime themselves
os.environ["COSTROUTE_BACKEND"] = "onnxruntime"  # the same engines whatever is installed; tests of `auto` remove it


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


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A tiny bundle to break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def store_copy(built_home: Path, tmp_path: Path) -> Store:
    """A built store to break."""
    return Store.open(shutil.copytree(built_home, tmp_path / "store"))


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny bundle of another family."""
    return write_other_bundle(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="session")
def twin_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a second bundle of the family of `tiny_bundle`, with the same files."""
    return write_twin_bundle(tiny_bundle, tmp_path_factory.mktemp("twin"))


@pytest.fixture(scope="session")
def pool_folder(tiny_bundle: Path, other_bundle: Path, twin_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of these three bundles; tests that change it copy it first."""
    return write_pool_of(tmp_path_factory.mktemp("pool") / "desk.pool", tiny_bundle, other_bundle, twin_bundle).root
