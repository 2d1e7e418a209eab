"""V4: a router reads no file that the manifest does not list, and no link out of its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle
from costroute_rt.error import BundleError
from costroute_rt.routing.router_bundle import open_router, with_router
from tests.runtime.routing.routers import write_network_router

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----"


@pytest.fixture
def routed(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose router has a tokenizer of its own."""
    bundle = Bundle.open(tiny_bundle)
    write_network_router(bundle, tmp_path / "fitted")
    return with_router(bundle, tmp_path / "fitted", tmp_path / "bundle").root


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "id_rsa"
    path.write_text(SECRET)
    return path


def seal(root: Path, **router: Any) -> Bundle:
    manifest = json.loads((root / "manifest.json").read_text())
    return seal_bundle(root, {**manifest, "router": {**manifest["router"], **router}})


def move_router(root: Path, secret: Path) -> None:
    """Move the router's files to r2, where tokenizer.json, which the manifest does not list, leads to the secret."""
    (root / "r2").mkdir()
    for name in ("router.json", "router.safetensors"):
        shutil.move(root / "router" / name, root / "r2" / name)
    seal(root, file="r2/router.json", arrays="r2/router.safetensors")
    (root / "r2" / "tokenizer.json").symlink_to(secret)


def test_a_tokenizer_beside_the_router_that_the_manifest_does_not_list_is_not_read(routed: Path, secret: Path) -> None:
    move_router(routed, secret)
    with pytest.raises(BundleError, match=r"expected r2/tokenizer\.json to be the router's tokenizer"):
        open_router(Bundle.open(routed))


def test_a_router_whose_manifest_lists_no_tokenizer_reads_none(routed: Path) -> None:
    manifest = json.loads((routed / "manifest.json").read_text())
    section = {name: value for name, value in manifest["router"].items() if name not in ("tokenizer", "max_length")}
    with pytest.raises(BundleError, match="no tokenizer that the manifest lists"):
        open_router(seal_bundle(routed, {**manifest, "router": section}))


def test_links_in_a_router_are_not_copied_into_a_bundle(routed: Path, secret: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "fitted" / "tokenizer.json"
    path.replace(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="must not be a link"):
        with_router(Bundle.open(tiny_bundle), tmp_path / "fitted", tmp_path / "new")
    assert not (tmp_path / "new").exists()
