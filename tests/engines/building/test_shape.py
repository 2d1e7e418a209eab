"""Engines that take any size, and engines that know theirs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.spec import make_spec
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.profile import profile_engines
from costroute_rt.engines.building.setup import Setup
from costroute_rt.engines.building.shape import depends_on_size, known_size, size_of, split_name, with_size
from costroute_rt.engines.building.specification import graph_names, sized_spec
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError, EngineError
from tests.engines.conftest import flip_byte, quarantine

SIZE = (64, 96)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


def test_names_carry_the_size() -> None:
    assert split_name("base/guided_step@512x768") == ("base", "guided_step")
    assert split_name("base/guided_step") == ("base", "guided_step")
    assert size_of("base/guided_step@512x768") == (512, 768)
    assert size_of("base/guided_step@large") is None


def test_only_graphs_that_depend_on_the_size_get_one(bundle: Bundle) -> None:
    names = ["text_encoder/encode", "base/condition", "base/guided_step", "turbo/step", "vae/decode"]
    assert [name for name in names if depends_on_size(bundle, name)] == names[2:]
    assert with_size(bundle, names[1:3], SIZE) == ["base/condition", "base/guided_step@64x96"]
    one_size = replace(bundle, image=replace(bundle.image, any_size=False, sizes=((64, 64),)))
    assert with_size(one_size, names, (64, 64)) == names
    with pytest.raises(ConfigError, match="multiple of 16"):
        with_size(bundle, names, (65, 64))


def test_a_size_adds_engines_beside_those_that_take_any(bundle: Bundle, store_copy: Store) -> None:
    reports = build_engines(bundle, store_copy, Setup(threads=1), size=SIZE)
    assert [report.graph for report in reports if report.built] == ["turbo/step@64x96", "base/guided_step@64x96", "vae/decode@64x96"]
    assert all(report.median_ms for report in reports)
    assert not any(report.built for report in build_engines(bundle, store_copy, Setup(threads=1), size=SIZE))
    assert not any(report.built for report in build_engines(bundle, store_copy, Setup(threads=1)))
    shapes = [known_size(bundle, stored.key.shapes) for stored in store_copy.engines()]
    assert sorted(shapes, key=str) == sorted([*[None] * 5, *[SIZE] * 3], key=str)
    with open_engine(bundle, store_copy, "turbo/step@64x96", Setup(threads=1)) as engine:
        assert engine.inputs["latent"].shape == (1, 4, 4, 6)
        known = example_feeds(bundle, "unet_turbo/step.onnx", sizes={"height": 4, "width": 6})
        with open_engine(bundle, store_copy, "turbo/step", Setup(threads=1)) as free:
            np.testing.assert_allclose(engine.run(known)["denoised"], free.run(known)["denoised"], atol=1e-4)
        with pytest.raises(ConfigError, match=r"float32\[1, 4, 4, 6\]"):
            engine.run(example_feeds(bundle, "unet_turbo/step.onnx"))
    assert Setup(threads=1).cost(bundle, store_copy, "vae/decode@64x96").graph == "vae/decode@64x96"
    assert [row.graph for row in profile_engines(bundle, store_copy, Setup(threads=1), size=SIZE)][-1] == "vae/decode@64x96"


def test_errors_about_an_engine_of_one_size_name_that_size(bundle: Bundle, tmp_path: Path) -> None:
    setup, store = Setup(threads=1), Store.open(tmp_path)
    with pytest.raises(EngineError, match=r"tiny/vae/decode@64x96 .*no such engine"):
        setup.cost(bundle, store, "vae/decode@64x96")
    build_engines(bundle, store, setup, graphs=["vae/decode"], size=SIZE, measure=False)
    with pytest.raises(EngineError, match=r"tiny/vae/decode@64x96 .*has not been measured"):
        setup.cost(bundle, store, "vae/decode@64x96")
    flip_byte(store.engines()[0].path / "model.onnx")
    with pytest.raises(EngineError, match=r"tiny/vae/decode@64x96 .*model\.onnx\): its content") as caught:
        open_engine(bundle, store, "vae/decode@64x96", setup)
    assert caught.value.bundle == str(bundle.root)
    quarantine(store, setup.key(bundle, "vae/decode@64x96"), "it is wrong")
    with pytest.raises(EngineError, match=r"tiny/vae/decode@64x96 .*it is wrong"):
        build_engines(bundle, store, setup, graphs=["vae/decode"], size=SIZE)


def test_what_is_built_unasked_is_measured_again_too(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ranged(OnnxRuntimeBackend):
        needs_ranges = True

    monkeypatch.setattr("costroute_rt.engines.building.setup.get_backend", lambda name: Ranged())
    built = build_engines(bundle, Store.open(tmp_path), Setup(threads=1), measure=False)
    measured = profile_engines(bundle, Store.open(tmp_path), Setup(threads=1))
    assert [row.graph for row in measured] == [report.graph for report in built]
    assert measured[-1].graph == "vae/decode@64x64"


@pytest.mark.parametrize("needs_ranges", [False, True])
def test_backends_that_build_for_ranges_add_engines_of_the_usual_size(bundle: Bundle, needs_ranges: bool) -> None:
    tool: Any = SimpleNamespace(needs_ranges=needs_ranges)
    plain = graph_names(bundle)
    usual = ["turbo/step@64x64", "base/guided_step@64x64", "vae/decode@64x64"]
    assert graph_names(bundle, tool=tool) == (plain + usual if needs_ranges else plain)
    assert graph_names(bundle, ["vae/decode"], tool=tool) == ["vae/decode"]
    assert graph_names(bundle, ["vae/decode"], SIZE, tool) == ["vae/decode@64x96"]
    one_size = replace(bundle, image=replace(bundle.image, any_size=False, sizes=((64, 64),)))
    assert graph_names(one_size, tool=tool) == plain


def test_lengths_that_are_asked_for_stay_beside_the_size(bundle: Bundle) -> None:
    spec = sized_spec(bundle, "turbo/step@64x96", make_spec(threads=1, shapes={"batch": 2}))
    assert {"batch": 2, "width": 6}.items() <= dict(spec.shapes).items()
    assert sized_spec(bundle, "turbo/step@64x96", spec) == spec
    with pytest.raises(ConfigError, match=r"the length of width is 9: expected 6, which images of 64x96 need"):
        sized_spec(bundle, "turbo/step@64x96", make_spec(threads=1, shapes={"width": 9}))


def test_one_engine_serves_texts_with_and_without_a_negative_prompt(bundle: Bundle, store_copy: Store) -> None:
    build_engines(bundle, store_copy, Setup(threads=1), size=SIZE, measure=False)
    with open_engine(bundle, store_copy, "base/condition", Setup(threads=1)) as engine:
        for rows in (1, 2):
            states = np.ones((rows, 16, 8), np.float32)
            assert engine.run({"text_encoder.last_hidden_state": states})["condition_0"].shape[0] == rows


def test_a_key_of_other_axes_is_no_profile(bundle: Bundle) -> None:
    assert known_size(bundle, "") is None
    assert known_size(bundle, "batch=1 height=4 width=4") is None
    assert known_size(bundle, "image_height=64 image_width=96") is None
    assert known_size(bundle, "image_height=many image_width=96") is None
