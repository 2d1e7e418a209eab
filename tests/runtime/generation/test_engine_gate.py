"""Engines are checked by their images: once, with the result in the store; those of other images are quarantined and left out."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from costroute_rt import Runtime
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_each
from costroute_rt.engines.building.lookup import read_cost
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BackendError
from costroute_rt.family.calls import candidate_names, engine_names
from costroute_rt.generation.engine_gate import check_images
from tests.int8_bundle import DENOISER, write_int8_bundle

SETUP = Setup(threads=1)
STEP = f"tiny/{DENOISER}/guided_step"


def built(bundle: Bundle, home: Path, setup: Setup = SETUP, names: list[str] | None = None) -> Store:
    store = Store.open(home)
    build_each(bundle, store, engine_names(bundle) if names is None else names, setup)
    return store


def test_int8_engines_are_compared_once_and_keep_their_costs(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, runs = write_int8_bundle(tiny_bundle, tmp_path / "bundle"), list[int]()
    store = built(bundle, tmp_path / "home")
    before = read_cost(bundle, store, STEP, SETUP)
    (report,) = check_images(bundle, store, SETUP, lambda: runs.append(1))
    assert (report.engine, report.reference, report.quarantined, report.skipped) == (STEP, "base on onnxruntime cpu float32", None, None)
    assert report.latent_psnr_db is not None
    assert report.ssim is not None
    assert 30 < report.latent_psnr_db < 200
    assert 0.95 < report.ssim <= 1
    assert len(runs) == 2 * 2 * (4 + 1)  # two engines, two images: four steps, and the texts
    (again,) = check_images(bundle, store, SETUP, lambda: runs.append(1))
    assert (again.latent_psnr_db, again.ssim, len(runs)) == (report.latent_psnr_db, report.ssim, 20)
    assert read_cost(bundle, store, STEP, SETUP).call == before.call
    with Runtime.open(bundle=bundle.root, home=tmp_path / "home", threads=1, build=False) as runtime:
        assert runtime.generate("a red house", candidate="tiny-base-int8@4", seed=0).pixels.shape == (1, 64, 64, 3)


def test_engines_whose_images_differ_are_quarantined_and_their_candidates_left_out(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = write_int8_bundle(tiny_bundle, tmp_path / "bundle", is_wrong=True)
    store = built(bundle, tmp_path / "home")
    (report,) = check_images(bundle, store, SETUP)
    assert report.quarantined is not None
    assert report.quarantined.startswith("its images differ from those of base on onnxruntime cpu float32: latent PSNR ")
    assert check_images(bundle, store, SETUP)[0].quarantined == report.quarantined
    with caplog.at_level(logging.WARNING), Runtime.open(bundle=bundle.root, home=tmp_path / "home", threads=1, build=False) as runtime:
        assert [each.name for each in runtime.candidates] == ["tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8"]
        runtime.generate("a red house", candidate="tiny-base@4", seed=0)
    assert "tiny-base-int8@8 is left out: the engine tiny/base-int8/guided_step is quarantined" in caplog.text


def test_without_float32_engines_it_says_why_nothing_was_compared(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = write_int8_bundle(tiny_bundle, tmp_path / "bundle")
    store = built(bundle, tmp_path / "home", names=candidate_names(bundle)["tiny-base-int8@4"])
    (report,) = check_images(bundle, store, SETUP)
    assert report.skipped == "there are no float32 engines of base to compare with"
    (report,) = check_images(bundle, Store.open(tmp_path / "empty"), SETUP)
    assert report.skipped == "not all of its engines are built, measured and good"
    assert check_images(Bundle.open(tiny_bundle), store, SETUP) == []


def test_bfloat16_engines_are_compared_with_float32_ones(tiny_bundle: Path, tmp_path: Path) -> None:
    setup = Setup(backend="openvino", precision="bfloat16", threads=1)
    try:
        get_backend("openvino")
        if (obstacle := setup.obstacle()) is not None:
            raise obstacle
    except BackendError as error:
        pytest.skip(str(error))
    bundle, names = Bundle.open(tiny_bundle), candidate_names(Bundle.open(tiny_bundle))["tiny-turbo@2"]
    store = built(bundle, tmp_path / "home", names=names)
    built(bundle, tmp_path / "home", setup, names)
    reports = {report.engine: report for report in check_images(bundle, store, setup)}
    turbo = reports["tiny/turbo/step"]
    assert (turbo.reference, turbo.quarantined) == ("turbo on onnxruntime cpu float32", None)
    assert turbo.latent_psnr_db is not None
    assert 25 < turbo.latent_psnr_db < 100
    assert reports["tiny/base/guided_step"].skipped is not None
