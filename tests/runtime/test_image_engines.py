"""Images to begin with on real engines: building the encoder on request, and the shipped bundle's encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import Bundle, ConfigError, EngineError, Reason, Runtime, shipped_bundle
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.bundle.size import with_size
from costroute_rt.engines.store.store import Store
from costroute_rt.family.calls import engine_names, image_encoder_names
from tests.changed_bundle import change_bundle, rename_tensors

ort = pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
IMAGE = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
BLACK = np.zeros((2, 2), np.bool_)


def test_the_encoder_is_built_on_request_and_then_found(tiny_bundle: Path, tmp_path: Path) -> None:
    with Runtime.open(tiny_bundle, home=tmp_path, threads=1, build=True, preload=False) as runtime:
        with pytest.raises(EngineError, match="no engine encodes initial images") as error:
            runtime.generate("a lake", init_image=IMAGE)
        assert error.value.reason is Reason.IMAGES_MISSING
    with pytest.raises(EngineError, match="tiny/vae/encode: no engine encodes initial images"):
        Runtime.open(tiny_bundle, home=tmp_path, threads=1, init_images=True)
    with Runtime.open(tiny_bundle, home=tmp_path, threads=1, build=True, init_images=True) as runtime:
        first = runtime.generate("a lake", init_image=IMAGE, strength=0.5, seed=1, width=96)
        assert first.timings.swap_ms == 0
    with Runtime.open(tiny_bundle, home=tmp_path, threads=1) as runtime:
        again = runtime.generate("a lake", init_image=IMAGE, strength=0.5, seed=1, width=96)
        kept = runtime.generate("a lake", init_image=IMAGE, mask=BLACK, width=96)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(kept.pixels[0], IMAGE)


def test_a_size_with_engines_of_its_own_uses_the_usual_encoder_or_its_own(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(tmp_path)
    build_engines(bundle, store, [*with_size(bundle, engine_names(bundle), (64, 96)), *image_encoder_names(bundle)])
    pixels = []
    for _ in range(2):
        with Runtime.open(tiny_bundle, home=tmp_path, threads=1, preload=False) as runtime:
            pixels.append(runtime.generate("a lake", init_image=IMAGE, strength=0.5, seed=1, width=96).pixels)
        build_engines(bundle, store, with_size(bundle, image_encoder_names(bundle), (64, 96)))
    assert np.abs(pixels[0].astype(int) - pixels[1]).max() <= 1


def test_an_encoder_in_another_form_is_left_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any], root: Path) -> None:
        rename_tensors(manifest, root, "vae/encoder.onnx", {"pixels": "sample"})

    bundle = change_bundle(tiny_bundle, tmp_path / "bundle", change)
    assert image_encoder_names(bundle) == []
    with pytest.raises(ConfigError, match="init_images is True: expected False: there is no graph that encodes images"):
        Runtime.open(bundle.root, home=tmp_path / "home", threads=1, build=True, preload=False, init_images=True)


def test_the_shipped_encoder_is_the_inverse_of_the_decoder() -> None:
    vae = shipped_bundle() / "vae"
    image = np.full((1, 256, 256, 3), (120, 170, 230), dtype=np.uint8)
    image[:, 128:] = 70, 140, 60
    encode, decode = (ort.InferenceSession(vae / f"{graph}.onnx", providers=["CPUExecutionProvider"]) for graph in ("encode", "decode"))
    (latent,) = encode.run(None, {"pixels": image})
    (pixels,) = decode.run(None, {"latent": latent})
    assert latent.shape == (1, 16, 16, 16)
    assert np.abs(pixels.astype(int) - image).mean() < 8
