"""F27: a bundle in the cache of a model hub, where every file is a link to `../../blobs/HASH`."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from costroute_rt import Bundle, BundleError, Runtime
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.store.store import Store
from costroute_rt.family.calls import engine_names

pytestmark = pytest.mark.skipif(os.name == "nt", reason="makes links, which need a privilege on Windows; the hub's cache has files there")


def into_hub_cache(bundle: Path, cache: Path, below: str = "") -> Path:
    """The bundle as a model hub's library stores it, in a folder of its repository; returns that folder."""
    repository = cache / "models--somebody--tiny"
    folder = repository / "snapshots" / "0123abc" / below
    (repository / "blobs").mkdir(parents=True)
    for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        link = folder / file.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return folder


@pytest.fixture
def hub(tiny_bundle: Path, tmp_path: Path) -> Path:
    return into_hub_cache(tiny_bundle, tmp_path / "hub")


@pytest.mark.parametrize("below", ["", "bundles/postcard"])
def test_f27_a_bundle_in_a_hub_cache_makes_the_same_image(tiny_bundle: Path, tmp_path: Path, below: str) -> None:
    linked = into_hub_cache(tiny_bundle, tmp_path / "hub", below)
    with Runtime.open(linked, home=tmp_path / "linked", build=True) as runtime:
        found = runtime.generate("a lake", seed=3, candidate="tiny-base@4").pixels
    with Runtime.open(tiny_bundle, home=tmp_path / "plain", build=True) as runtime:
        assert (runtime.generate("a lake", seed=3, candidate="tiny-base@4").pixels == found).all()
    assert [path.name for path in (tmp_path / "linked/engines").iterdir() if path.name.startswith(".")] == []


def test_f27_the_cache_may_be_reached_through_a_link(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "short").symlink_to(hub)
    Bundle.open(tmp_path / "short")
    (tmp_path / "cache").symlink_to(tmp_path / "hub")
    Bundle.open(tmp_path / "cache" / hub.relative_to(tmp_path / "hub"))


def test_f27_weights_are_copied_where_hard_links_fail(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    bundle = Bundle.open(hub)
    assert all(report.built for report in build_engines(bundle, Store.open(tmp_path / "home"), engine_names(bundle), Setup(threads=1)))


@pytest.mark.parametrize("setup", [Setup(backend="openvino")], ids=str)
def test_f27_other_backends_build_from_links(hub: Path, tmp_path: Path, setup: Setup) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    bundle = Bundle.open(hub)
    reports = build_engines(bundle, Store.open(tmp_path / "home"), engine_names(bundle), setup, measure=False)
    assert all(report.proved for report in reports)


def test_f27_a_blob_that_has_changed_is_damage(hub: Path) -> None:
    blob = next(hub.rglob("*.safetensors")).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(BundleError, match="does not match the manifest"):
        Bundle.open(hub)


def relink(link: Path, target: Path) -> None:
    link.unlink()
    link.symlink_to(target)


@pytest.mark.parametrize("place", ["elsewhere", "beside the blobs", "below the blobs", "another repository", "through a blob", "a folder"])
def test_f27_other_links_out_of_the_bundle_are_refused(hub: Path, tmp_path: Path, place: str) -> None:
    weights, repository = next(hub.rglob("*.safetensors")), hub.parent.parent
    real = weights.resolve()
    others = {
        "elsewhere": tmp_path / "secret",
        "beside the blobs": repository / "refs",
        "below the blobs": repository / "blobs/more/file",
        "another repository": tmp_path / "hub/models--else--else/blobs/file",
    }
    if place in others:
        others[place].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real, others[place])
        relink(weights, others[place])
    elif place == "through a blob":
        shutil.move(real, tmp_path / "secret")
        real.symlink_to(tmp_path / "secret")
    else:
        shutil.copytree(weights.parent, repository / "blobs/folder")
        shutil.rmtree(weights.parent)
        weights.parent.symlink_to(repository / "blobs/folder")
    with pytest.raises(BundleError, match="a link out of the bundle"):
        Bundle.open(hub)


@pytest.mark.parametrize("shape", ["no snapshots", "no blobs"])
def test_f27_a_folder_that_only_looks_like_a_cache_is_refused(tiny_bundle: Path, tmp_path: Path, shape: str) -> None:
    bundle = Path(
        shutil.copytree(tiny_bundle, tmp_path / ("repository/versions/1" if shape == "no snapshots" else "repository/snapshots/1"))
    )
    blobs = tmp_path / "repository" / ("blobs" if shape == "no snapshots" else "files")
    blobs.mkdir()
    weights = next(bundle.rglob("*.safetensors"))
    shutil.copyfile(weights, blobs / "file")
    relink(weights, blobs / "file")
    with pytest.raises(BundleError, match="a link out of the bundle"):
        Bundle.open(bundle)
