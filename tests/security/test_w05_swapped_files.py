"""W5: files that are swapped or changed after their check are not used."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building import source
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.building.source import verified_graph
from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle
from costroute_rt.engines.bundle.manifest import FileEntry
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BundleError
from costroute_rt.family.family import open_tokenizers
from costroute_rt.routing.router_bundle import open_router, with_router
from tests.runtime.routing.routers import write_network_router
from tests.security.hostile_graph import ENGINE, GRAPH, copy_bundle

WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


def test_a_file_that_is_swapped_after_opening_is_not_read(tiny_bundle: Path, tmp_path: Path) -> None:
    root = copy_bundle(tiny_bundle, tmp_path)
    bundle, name = Bundle.open(root), "tokenizer/tokenizer.json"
    assert bundle.read(name) == (root / name).read_bytes()
    (root / name).write_bytes((root / name).read_bytes().replace(b"<|startoftext|>", b"<|startoftexu|>"))
    with pytest.raises(BundleError, match="does not match the manifest"):
        bundle.read(name)
    (root / name).write_bytes(bytes(10 << 20))
    with pytest.raises(BundleError, match="larger than"):
        bundle.read(name)


@pytest.mark.skipif(os.name == "nt", reason="makes a pipe")
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tiny_bundle: Path, tmp_path: Path) -> None:
    root = copy_bundle(tiny_bundle, tmp_path)
    bundle = Bundle.open(root)
    (root / WEIGHTS).unlink()
    os.mkfifo(root / WEIGHTS)
    for call in (lambda: bundle.read(WEIGHTS), bundle.verify, bundle.check_hashes):
        with pytest.raises(BundleError, match="not a regular file"):
            call()


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS])
@pytest.mark.parametrize("has_links", [True, False])
def test_a_swap_between_check_and_build_reaches_no_engine(
    tiny_bundle: Path, tmp_path: Path, name: str, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, store = copy_bundle(tiny_bundle, tmp_path), Store.open(tmp_path / "home")
    honest = (root / name).read_bytes()
    if not has_links:
        monkeypatch.setattr(source.os, "link", refuse_links)
    with verified_graph(Bundle.open(root), store, "vae", "decode", "0" * 64) as graph:
        (root / "new").write_bytes(b"another file")
        os.replace(root / "new", root / name)
        folder = graph.parents[1]
        assert (folder / name).read_bytes() == honest
        assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [GRAPH, WEIGHTS]
        assert os.name == "nt" or folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    with pytest.raises(BundleError):
        Bundle.open(root, verify=False).check_hashes(hash_files=store.hash_files)  # what was swapped is not remembered as good


def refuse_links(*_: object) -> None:
    raise OSError("no hard links here")


def test_a_change_during_a_build_leaves_no_engine(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, store, build = copy_bundle(tiny_bundle, tmp_path), Store.open(tmp_path / "home"), OnnxRuntimeBackend.build

    def change_and_build(self: Any, graph: Path, *rest: Any) -> None:
        data = bytearray((root / WEIGHTS).read_bytes())
        data[-1] ^= 1
        with open(root / WEIGHTS, "r+b") as file:  # the same inode
            file.write(data)
        build(self, graph, *rest)

    monkeypatch.setattr(OnnxRuntimeBackend, "build", change_and_build)
    with pytest.raises(BundleError, match="does not match the manifest"):
        build_engines(Bundle.open(root), store, [ENGINE], Setup(threads=1), measure=False)
    assert not list(store.folder.iterdir())


def test_an_engine_is_built_without_what_lies_beside_its_graph(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, build = list[Path](), OnnxRuntimeBackend.build

    def note(self: Any, graph: Path, *rest: Any) -> None:
        seen.append(graph)
        build(self, graph, *rest)

    monkeypatch.setattr(OnnxRuntimeBackend, "build", note)
    root = copy_bundle(tiny_bundle, tmp_path)
    (root / "vae/evil.bin").write_bytes(b"not listed")
    build_engines(Bundle.open(root), Store.open(tmp_path / "home"), [ENGINE], Setup(threads=1), measure=False)
    assert seen
    assert not any(path.is_relative_to(root) for path in seen)


@pytest.fixture
def routed(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    """A bundle with a router that has a tokenizer of its own."""
    bundle = Bundle.open(copy_bundle(tiny_bundle, tmp_path))
    write_network_router(bundle, tmp_path / "router")
    return with_router(bundle, tmp_path / "router", tmp_path / "routed")


def open_both(bundle: Bundle) -> None:
    open_router(bundle)
    open_tokenizers(bundle)


@pytest.mark.parametrize("name", ["router/router.json", "router/router.safetensors", "router/tokenizer.json", "tokenizer/tokenizer.json"])
def test_a_swapped_router_or_tokenizer_is_not_used(routed: Bundle, name: str) -> None:
    data, path = (routed.root / name).read_bytes(), routed.root / name
    changed = data[:-1] + b" " if name.endswith(".json") else data[:-1] + bytes([data[-1] ^ 1])
    path.unlink()  # other bundles have links to it
    path.write_bytes(changed)
    with pytest.raises(BundleError, match=r"does not match the manifest|not the file that router.json was written with"):
        open_both(routed)


@pytest.mark.parametrize("name", ["router/router.json", "router/tokenizer.json", "tokenizer/tokenizer.json"])
def test_a_listed_file_is_read_up_to_the_limit_of_its_kind(routed: Bundle, name: str) -> None:
    path = routed.root / name
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(200 << 20)
    entry = FileEntry(sha256="0" * 64, bytes=200 << 20)  # the hash is not even computed
    with pytest.raises(BundleError, match="larger than 64 MiB"):
        open_both(replace(routed, files={**routed.files, name: entry}))


def test_a_new_router_goes_into_the_files_that_were_opened(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(copy_bundle(tiny_bundle, tmp_path))
    write_network_router(bundle, tmp_path / "router")
    data = bytearray((bundle.root / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (bundle.root / WEIGHTS).write_bytes(data)
    with pytest.raises(BundleError, match="does not match the manifest"):
        with_router(bundle, tmp_path / "router", tmp_path / "routed")
    assert not (tmp_path / "routed").exists()


def test_a_new_router_goes_into_the_manifest_that_was_opened(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(copy_bundle(tiny_bundle, tmp_path))
    write_network_router(bundle, tmp_path / "router")
    seal_bundle(bundle.root, {**bundle.read_manifest(), "revision": "another"})
    with pytest.raises(BundleError, match="it was replaced"):
        with_router(bundle, tmp_path / "router", tmp_path / "routed")
