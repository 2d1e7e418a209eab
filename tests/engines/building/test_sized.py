"""Engines that take any size, and engines that know theirs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import open_engine
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.lookup import engine_key, names_to_build, read_cost
from costroute_rt.engines.building.profile import profile_engines
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.size import known_size, with_size
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError, EngineError
from costroute_rt.family.calls import engine_names
from tests.engines.conftest import build, flip_byte, quarantine

SIZE = (64, 96)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


def test_a_size_adds_engines_beside_those_that_take_any(bundle: Bundle, store_copy: Store) -> None:
    reports = build(bundle, store_copy, Setup(threads=1), size=SIZE)
    assert [report.engine for report in reports if report.built] == [
        "tiny/turbo/step@64x96",
        "tiny/base/guided_step@64x96",
        "tiny/vae/decode@64x96",
    ]
    assert all(report.median_ms for report in reports)
    assert not any(report.built for report in build(bundle, store_copy, Setup(threads=1), size=SIZE))
    assert not any(report.built for report in build(bundle, store_copy, Setup(threads=1)))
    shapes = [known_size(bundle, stored.key.shapes) for stored in store_copy.engines()]
    assert sorted(shapes, key=str) == sorted([*[None] * 5, *[SIZE] * 3], key=str)
    with open_engine(bundle, store_copy, "tiny/turbo/step@64x96", Setup(threads=1)) as engine:
        assert engine.inputs["latent"].shape == (1, 4, 4, 6)
        known = example_feeds(bundle, "unet_turbo/step.onnx", {"height": 4, "width": 6})
        with open_engine(bundle, store_copy, "tiny/turbo/step", Setup(threads=1)) as free:
            np.testing.assert_allclose(engine.run(known)["denoised"], free.run(known)["denoised"], atol=1e-4)
        with pytest.raises(ConfigError, match=r"float32\[1, 4, 4, 6\]"):
            engine.run(example_feeds(bundle, "unet_turbo/step.onnx"))
    assert read_cost(bundle, store_copy, "tiny/vae/decode@64x96", Setup(threads=1)).engine == "tiny/vae/decode@64x96"
    names = with_size(bundle, engine_names(bundle), SIZE)
    assert [cost.engine for cost in profile_engines(bundle, store_copy, names, Setup(threads=1))] == names


def test_errors_about_an_engine_of_one_size_name_that_size(bundle: Bundle, tmp_path: Path) -> None:
    setup, store = Setup(threads=1), Store.open(tmp_path)
    with pytest.raises(EngineError, match=r"tiny/vae/decode@64x96 .*no such engine"):
        read_cost(bundle, store, "tiny/vae/decode@64x96", setup)
    build(bundle, store, setup, names=["tiny/vae/decode"], size=SIZE, measure=False)
    with pytest.raises(EngineError, match=r"tiny/vae/decode@64x96 .*has not been measured"):
        read_cost(bundle, store, "tiny/vae/decode@64x96", setup)
    flip_byte(store.engines()[0].path / "model.onnx")
    with pytest.raises(EngineError, match=r"tiny/vae/decode@64x96 .*model\.onnx\): its content") as caught:
        open_engine(bundle, store, "tiny/vae/decode@64x96", setup)
    assert caught.value.bundle == str(bundle.root)
    quarantine(store, engine_key(bundle, "tiny/vae/decode@64x96", setup), "it is wrong")
    with pytest.raises(EngineError, match=r"tiny/vae/decode@64x96 .*it is wrong"):
        build(bundle, store, setup, names=["tiny/vae/decode"], size=SIZE)


@pytest.mark.parametrize("needs_ranges", [False, True])
def test_backends_that_build_for_ranges_add_engines_of_the_usual_size(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, needs_ranges: bool
) -> None:
    monkeypatch.setattr("costroute_rt.engines.backends.setup.get_backend", lambda name: SimpleNamespace(needs_ranges=needs_ranges))
    plain = engine_names(bundle)
    usual = ["tiny/turbo/step@64x64", "tiny/base/guided_step@64x64", "tiny/vae/decode@64x64"]
    assert names_to_build(bundle, plain, Setup()) == (plain + usual if needs_ranges else plain)
    one_size = replace(bundle, image=replace(bundle.image, any_size=False, sizes=((64, 64),)))
    assert names_to_build(one_size, plain, Setup()) == plain


def test_an_engine_is_built_for_the_lengths_of_its_size(bundle: Bundle) -> None:
    setup = Setup(threads=1)
    assert dict(setup.spec(bundle, "tiny/turbo/step@64x96").shapes).items() >= {"height": 4, "width": 6, "batch": 1}.items()
    assert "height" not in dict(setup.spec(bundle, "tiny/turbo/step").shapes)
    with pytest.raises(ConfigError, match="multiple of 16"):
        setup.spec(bundle, "tiny/turbo/step@64x90")


def test_one_engine_serves_texts_with_and_without_a_negative_prompt(bundle: Bundle, store_copy: Store) -> None:
    build(bundle, store_copy, Setup(threads=1), size=SIZE, measure=False)
    with open_engine(bundle, store_copy, "tiny/base/condition", Setup(threads=1)) as engine:
        for rows in (1, 2):
            states = np.ones((rows, 16, 8), np.float32)
            assert engine.run({"text_encoder.last_hidden_state": states})["condition_0"].shape[0] == rows
