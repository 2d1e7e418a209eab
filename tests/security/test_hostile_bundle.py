"""A hostile bundle against every command that opens one: refused with a documented exit code, soon, and nothing outside is touched."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BundleError
from costroute_rt.family.calls import engine_names
from tests.export.router.label_text import write_labels
from tests.security.every_command import COMMANDS, run_commands
from tests.security.hostile_graph import LOOP_CONSTANTS, adds, copy_bundle, decoder, external, loop, model, part, replace_graph, seal

WEIGHTS, TOKENIZER = "vae/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"
ENDLESS = decoder([loop("turns")], [*LOOP_CONSTANTS, ("turns", np.array(1 << 62))])
REFUSED = (2, 4, 5)
NO_TOKENIZER = ("profile",)
"""Commands that read no tokenizer."""


def rewrite(source: Path, tmp_path: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    root = copy_bundle(source, tmp_path)
    (root / name).write_bytes(change((root / name).read_bytes()))
    seal(root, *([] if name.startswith("manifest") else [name]))
    return root


def explode(data: bytes) -> bytes:
    parts = [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}] * 12
    return json.dumps({**json.loads(data), "normalizer": {"type": "Sequence", "normalizers": parts}}).encode()


def break_weights(data: bytes) -> bytes:
    return data[:-4] + np.array([np.nan], "<f4").tobytes()


def rename(data: bytes) -> bytes:
    """Text that takes over a terminal, in the place of names."""
    return data.replace(b'"tiny"', b'"\\u001b]0;PWN\\u0007\\u001b[2J"')


def link_out(source: Path, tmp_path: Path) -> Path:
    root = copy_bundle(source, tmp_path)
    (root / WEIGHTS).rename(tmp_path / "outside" / "secret")
    (root / WEIGHTS).symlink_to(tmp_path / "outside" / "secret")
    return root


def pipe(source: Path, tmp_path: Path) -> Path:
    root = copy_bundle(source, tmp_path)
    (root / "manifest.json").unlink()
    os.mkfifo(root / "manifest.json")
    return root


HIDDEN = model(adds(part(5, external("../../outside/secret"), tag=5 << 3 | 2 | 1 << 32)))
BUNDLES: dict[str, Callable[[Path, Path], Path]] = {
    "endless graph": lambda source, tmp_path: replace_graph(source, tmp_path, ENDLESS),
    "hidden weights": lambda source, tmp_path: replace_graph(source, tmp_path, HIDDEN),
    "weights outside": lambda source, tmp_path: replace_graph(source, tmp_path, model(adds(part(5, external("../../outside/secret"))))),
    "exploding tokenizer": lambda source, tmp_path: rewrite(source, tmp_path, TOKENIZER, explode),
    "weights that are NaN": lambda source, tmp_path: rewrite(source, tmp_path, WEIGHTS, break_weights),
    "names that control a terminal": lambda source, tmp_path: rewrite(source, tmp_path, "manifest.json", rename),
    "link out": link_out,
    "pipe": pipe,
}


@pytest.mark.skipif(sys.platform != "linux", reason="makes pipes and links, and limits the time of processes, as Linux does")
@pytest.mark.parametrize("make", BUNDLES.values(), ids=BUNDLES)
def test_a_hostile_bundle_is_refused_by_every_command(tiny_bundle: Path, tmp_path: Path, make: Callable[[Path, Path], Path]) -> None:
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    outside, work = tmp_path / "outside", tmp_path / "work"
    outside.mkdir()
    work.mkdir()
    names = [row["name"] for row in Bundle.open(tiny_bundle, verify=False).pool]
    (work / "labels.csv").write_text(write_labels(names, count=12))
    (outside / "secret").write_bytes(b"kept")
    root = make(tiny_bundle, tmp_path)
    before = {path: path.read_bytes() for path in outside.iterdir()}
    results = run_commands([[*command, "--bundle", str(root)] for command in COMMANDS], work, tmp_path / "home")
    for name, code, text in results:
        is_unread = make is BUNDLES["exploding tokenizer"] and name in NO_TOKENIZER
        assert code in ((0,) if is_unread else REFUSED), (name, code, text)
        assert "Traceback" not in text
        assert "a bug" not in text
        assert "\x1b" not in text
    assert {path: path.read_bytes() for path in outside.iterdir()} == before
    assert sorted(path.name for path in work.iterdir()) == ["labels.csv"]


def test_a_hostile_graph_is_refused_before_any_engine_is_built(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(replace_graph(tiny_bundle, tmp_path, ENDLESS), verify=False)
    names = engine_names(bundle)
    store = Store.open(tmp_path / "home")
    with pytest.raises(BundleError, match="a loop of"):
        build_engines(bundle, store, sorted(names, key=lambda name: "vae" in name), Setup(threads=1), measure=False)
    assert store.engines() == []
