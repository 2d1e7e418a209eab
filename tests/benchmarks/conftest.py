"""A tiny bundle with the postcard family's scorer heads, and one engine store for all tests of this folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import seal_bundle
from costroute_rt.export.postcard.scene import ATTRIBUTES
from costroute_rt.export.scorer import CLEANNESS
from tests import tiny_bundle as tiny


@pytest.fixture(scope="session")
def judged_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a random scorer for all attributes of a postcard."""
    return _with_scorer(tiny_bundle, tmp_path_factory.mktemp("judged") / "bundle", cleanness=False)


@pytest.fixture(scope="session")
def clean_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a scorer that also judges cleanness, at random."""
    return _with_scorer(tiny_bundle, tmp_path_factory.mktemp("clean") / "bundle", cleanness=True)


@pytest.fixture(scope="session")
def engine_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engine store of all tests in this folder; the first test that needs an engine builds it."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def exported_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a small checkpoint, for tests marked `export`."""
    from costroute_rt.export.checkpoint.checkpoint import export_bundle
    from tests.export.small_checkpoint import make_recipe, write_checkpoint

    folder = tmp_path_factory.mktemp("exported")
    return export_bundle(write_checkpoint(folder / "checkpoint"), folder / "bundle", make_recipe())


def _with_scorer(source: Path, root: Path, *, cleanness: bool) -> Path:
    shutil.copytree(source, root)
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    manifest["graphs"]["scorer/scorer.onnx"] = _write_scorer(root, cleanness=cleanness)
    seal_bundle(root, {name: value for name, value in manifest.items() if name not in ("format", "format_version", "files")})
    return root


def _write_scorer(root: Path, *, cleanness: bool) -> object:
    rng = np.random.default_rng(5)
    features = 3 * tiny.FACTOR**2
    sizes = {name: len(values) for name, values in ATTRIBUTES.items()}
    widths = {**sizes, CLEANNESS: 1} if cleanness else sizes
    graph = tiny.Graph({f"{name}.weight": tiny._random(rng, 0.3, features, size) for name, size in widths.items()})
    pooled = graph.op("ReduceMean", tiny._unit_patches(graph), axes=[2, 3], keepdims=0)
    for name in sizes:
        graph.op("Softmax", graph.op("MatMul", pooled, graph.weight(f"{name}.weight")), out=name, axis=1)
    if cleanness:
        graph.op("Sigmoid", graph.op("MatMul", pooled, graph.weight(f"{CLEANNESS}.weight")), out=CLEANNESS)
    outputs = {name: ("float32", ["batch", size]) for name, size in widths.items()}
    return graph.save(root / "scorer/scorer.onnx", "model.safetensors", {"pixels": ("uint8", tiny.PIXELS)}, outputs)
