"""Opening a runtime on real engines: the tiny bundle on ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import BackendError, BundleError, ConfigError, EngineError, Reason, Runtime
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.family.family import EngineSizes
from tests.engines.conftest import build, flip_byte

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A store with the tiny bundle's engines."""
    home = tmp_path_factory.mktemp("home")
    Runtime.open(tiny_bundle, home=home, threads=1, build=True, preload=False).close()
    return home


@pytest.fixture
def runtime(tiny_bundle: Path, store: Path) -> Iterator[Runtime]:
    with Runtime.open(tiny_bundle, home=store, threads=1) as runtime:
        yield runtime


def test_another_runtime_reproduces_images_bit_for_bit(runtime: Runtime, tiny_bundle: Path, store: Path) -> None:
    first = runtime.generate("a red house by a lake", seed=7, count=2)
    with Runtime.open(tiny_bundle, home=store, threads=1, preload=False) as other:
        again = other.generate("a red house by a lake", seed=8)
    np.testing.assert_array_equal(first.pixels[1], again.pixels[0])
    assert first.settings["backend"] == "onnxruntime"
    assert again.timings.swap_ms > 0 == first.timings.swap_ms


def test_each_candidate_runs(runtime: Runtime) -> None:
    for candidate in runtime.candidates:
        result = runtime.generate("three pine trees", seed=1, candidate=candidate.name, negative_prompt="snow", height=64, width=96)
        assert result.pixels.shape == (1, 64, 96, 3)
        assert len(result.timings.denoise_ms) == candidate.num_inference_steps


def test_damaged_weights_are_refused_even_if_the_engines_are_built(tiny_bundle: Path, store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    flip_byte(copy / "unet/diffusion_pytorch_model.safetensors")
    with pytest.raises(BundleError, match=r"diffusion_pytorch_model\.safetensors.*does not match"):
        Runtime.open(copy, home=store, threads=1)


def test_the_error_for_missing_engines_has_their_setup_and_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="build the engines") as caught:
        Runtime.open(tiny_bundle, home=tmp_path)
    assert (caught.value.reason, caught.value.engine) == (Reason.MISSING, "tiny/text_encoder/encode")
    assert caught.value.setup == {"backend": "onnxruntime", "provider": "cpu", "precision": "float32", "target": ""}
    assert caught.value.bundle == str(tiny_bundle)


def test_errors_carry_the_threads_that_were_asked_for(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        Runtime.open(tiny_bundle, home=tmp_path, threads=2)
    assert (caught.value.setup or {})["threads"] == "2"


@pytest.mark.parametrize("threads", [0, -1, True, False, 2.0, "2", 10**9, 10**30, float("nan"), [2], np.float64(2), np.bool_(True)])
def test_impossible_threads_are_refused_before_anything_is_opened(tiny_bundle: Path, tmp_path: Path, threads: Any) -> None:
    with pytest.raises(ConfigError, match=r"threads is .*: expected a whole number from 1 to \d+"):
        Runtime.open(tiny_bundle, home=tmp_path / "home", threads=threads, build=True)
    assert not (tmp_path / "home").exists()


def test_threads_may_be_any_kind_of_whole_number(tiny_bundle: Path, store: Path) -> None:
    with Runtime.open(tiny_bundle, home=store, threads=np.int64(1), preload=False) as runtime:  # type: ignore[arg-type]
        assert runtime.assumes is None
        assert type(Setup.of(threads=np.int64(1)).threads) is int  # type: ignore[arg-type]


def test_the_error_for_engines_without_costs_names_the_engine(tiny_bundle: Path, tmp_path: Path) -> None:
    Runtime.open(tiny_bundle, home=tmp_path, threads=1, build=True, preload=False).close()
    for costs in tmp_path.rglob("costs.json"):
        costs.unlink()
    with pytest.raises(EngineError, match=r"tiny/text_encoder/encode .*not been measured.*profile the engines") as caught:
        Runtime.open(tiny_bundle, home=tmp_path, threads=1)
    assert caught.value.reason is Reason.NOT_MEASURED


@pytest.mark.parametrize(("section", "key", "value"), [("schedulers", "_class_name", "Other"), ("pool", "num_inference_steps", 5000)])
def test_an_unusable_scheduler_raises_a_bundle_error(tiny_bundle: Path, tmp_path: Path, section: str, key: str, value: object) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest[section]["turbo" if section == "schedulers" else 0][key] = value
    data = json.dumps(manifest).encode()
    (bundle / "manifest.json").write_bytes(data)
    (bundle / "manifest.sha256").write_text(hashlib.sha256(data).hexdigest())
    with pytest.raises(BundleError, match=rf"manifest\.json.*{key} is .*{value}"):
        Runtime.open(bundle, home=tmp_path / "home", build=True)
    assert not (tmp_path / "home").exists()


def test_a_missing_bundle_directory_raises_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        Runtime.open(tmp_path / "missing", home=tmp_path)


def test_a_size_with_engines_of_its_own_uses_them(tiny_bundle: Path, store: Path, tmp_path: Path) -> None:
    home = shutil.copytree(store, tmp_path / "home")
    build(Bundle.open(tiny_bundle, verify=False), Store.open(home), Setup(threads=1), size=(64, 96))
    with Runtime.open(tiny_bundle, home=store, threads=1, preload=False) as usual:
        want = usual.generate("a lake", seed=1, candidate="tiny-base@4", height=64, width=96).pixels
    with Runtime.open(tiny_bundle, home=home, threads=1) as runtime:
        found = runtime.generate("a lake", seed=1, candidate="tiny-base@4", height=64, width=96)
        resident = set(runtime._resources.engines._resident)
        assert {"tiny/base/guided_step@64x96", "tiny/vae/decode@64x96", "tiny/base/condition", "tiny/base/guided_step"} <= resident
        assert "tiny/base/condition@64x96" not in resident
        np.testing.assert_allclose(found.pixels.astype(int), want.astype(int), atol=1)
        assert runtime.route("a lake", candidate="tiny-base@4", height=64, width=96).option.resident
        runtime.generate("a lake", seed=1, candidate="tiny-base@4", height=32, width=32)


def test_the_error_for_a_size_without_engines_names_the_nearest_size(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, store = Bundle.open(tiny_bundle, verify=False), Store.open(tmp_path)
    for size in ((64, 96), (128, 128)):
        build(bundle, store, Setup(threads=1), size=size)
    with Runtime.open(tiny_bundle, home=tmp_path, threads=1) as runtime:
        assert runtime.generate("a lake", seed=1, height=64, width=96).pixels.shape == (1, 64, 96, 3)
        for call in (runtime.generate, runtime.route):
            with pytest.raises(EngineError, match=r"of 64x64; the nearest size.*is 64x96; build engines for this size") as caught:
                call("a lake")
            assert caught.value.reason is Reason.SIZE_MISSING
            assert str(caught.value.engine).endswith("@64x64")
            assert (caught.value.setup or {})["backend"] == "onnxruntime"
        with pytest.raises(EngineError, match=r"nearest.*is 128x128"):
            runtime.generate("a lake", height=112, width=128)


def test_engines_built_for_a_size_have_their_own_costs(open_device: Any) -> None:
    from tests.runtime.fakes import CALL_MS, steady

    own = {f"{name}@64x96": steady(3 * ms) for name, ms in CALL_MS.items()}
    device = open_device(measured={**{name: steady(ms) for name, ms in CALL_MS.items()}, **own})
    family = device.resources.main_family.with_sizes(EngineSizes(frozenset({(64, 96)})))
    runtime = Runtime(replace(device.resources, families={family.name: family}))
    assert runtime.route("a lake", candidate="turbo@1", height=64, width=96).option.cost.denoise_ms == 60.0
    assert runtime.route("a lake", candidate="turbo@1", height=64, width=128).option.cost.denoise_ms == 40.0


def test_a_fallback_needs_permission_and_every_result_gives_its_reason(
    tiny_bundle: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    how: dict[str, Any] = {"home": store, "provider": "cuda", "threads": 1, "preload": False}
    with pytest.raises(BackendError, match="onnxruntime_providers_cuda"):
        Runtime.open(tiny_bundle, **how)
    with Runtime.open(tiny_bundle, allow_fallback=True, **how) as runtime:
        result = runtime.generate("a lake", seed=1)
    assert result.fallback == runtime.fallback is not None
    assert "onnxruntime_providers_cuda" in result.fallback
    assert (result.settings["backend"], result.settings["provider"]) == ("onnxruntime", "cpu")
