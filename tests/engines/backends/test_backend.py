"""What every backend must do; run over each that is installed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.backends.engine import Backend, Engine
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.backends.spec import make_spec
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.lookup import engine_key
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.graph_spec import fix_axes
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BackendError, ConfigError, EngineError
from tests.engines.conftest import rewrite_manifest

BACKENDS = ["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
GRAPHS = ["tiny/text_encoder/encode", "tiny/base/guided_step", "tiny/vae/decode"]
"""Those with int64 inputs, a number without axes, uint8 outputs."""


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return get_backend(request.param)
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def home(backend: Backend, built_home: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the tiny bundle's engines of the backend."""
    if backend.name == "onnxruntime":
        return built_home
    found = tmp_path_factory.mktemp(backend.name)
    build(backend, Bundle.open(tiny_bundle), Store.open(found), GRAPHS)
    return found


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


@pytest.fixture
def engine(backend: Backend, bundle: Bundle, home: Path) -> Engine:
    return open_or_skip(backend, bundle, Store.open(home), "tiny/base/guided_step")


def build(backend: Backend, bundle: Bundle, store: Store, names: Sequence[str]) -> None:
    """Builds, without a GPU too; what cannot even build without one is skipped."""
    try:
        build_engines(bundle, store, names, Setup.of(backend.name, threads=1), measure=False)
    except BackendError as error:
        pytest.skip(str(error))


def open_or_skip(backend: Backend, bundle: Bundle, store: Store, name: str) -> Engine:
    obstacle = backend.obstacle()
    if obstacle is not None:
        with pytest.raises(BackendError, match=re.escape(str(obstacle))):
            open_engine(bundle, store, name, Setup.of(backend.name, threads=1))
        pytest.skip(f"built, cannot be run: {obstacle}")
    return open_engine(bundle, store, name, Setup.of(backend.name, threads=1))


def put(engine: Engine, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: engine.to_device(array) for name, array in feeds.items()}


def test_an_engine_computes_what_its_graph_says_at_any_size(engine: Engine, bundle: Bundle) -> None:
    tolerance = 2e-2 if engine.key is not None and engine.key.precision == "float16" else 1e-3
    for height in (4, 6):
        feeds = example_feeds(bundle, "unet/guided_step.onnx", {"height": height})
        expected = OnnxRuntimeBackend().open_reference(bundle.path("unet/guided_step.onnx")).run(feeds)
        found = engine.run(put(engine, feeds))
        for name, want in expected.items():
            np.testing.assert_allclose(engine.to_host(found[name]), want, rtol=tolerance, atol=tolerance)


def test_an_engine_says_what_it_takes_and_gives(engine: Engine, backend: Backend, bundle: Bundle) -> None:
    spec = bundle.graphs["unet/guided_step.onnx"]
    assert dict(engine.inputs) == dict(fix_axes(spec, {"batch": 1}).inputs)
    assert engine.outputs.keys() == spec.outputs.keys()
    assert engine.provider == backend.default_provider
    assert engine.resident_bytes > 100_000
    assert engine.key is not None
    assert engine.key.graph == "tiny/base/guided_step"


@pytest.mark.parametrize("name", GRAPHS)
def test_engines_agree_with_the_reference_to_a_ten_thousandth(name: str, backend: Backend, bundle: Bundle, home: Path) -> None:
    if backend.default_precision != "float32":
        pytest.skip(f"{backend.name} computes in {backend.default_precision}, which is not as precise as a ten thousandth")
    path = bundle.graph_path(*name.split("/")[1:])
    feeds = example_feeds(bundle, path)
    expected = OnnxRuntimeBackend().open_reference(bundle.path(path)).run(feeds)
    with open_or_skip(backend, bundle, Store.open(home), name) as engine:
        found = engine.run(put(engine, feeds))
        for name, want in expected.items():
            have = engine.to_host(found[name])
            assert (have.dtype, have.shape) == (want.dtype, want.shape)
            # A sum on the border between two levels of a pixel may be rounded either way.
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1 if want.dtype == np.uint8 else 1e-4)


def test_outputs_outlive_the_next_call(engine: Engine, bundle: Bundle) -> None:
    feeds = put(engine, example_feeds(bundle, "unet/guided_step.onnx"))
    first = engine.run(feeds)
    before = engine.to_host(first["denoised"]).copy()
    engine.run({**feeds, "latent": engine.to_device(np.ones((1, 4, 4, 4), np.float32))})
    np.testing.assert_array_equal(engine.to_host(first["denoised"]), before)


def test_only_some_feeds_change_from_run_to_run(engine: Engine, bundle: Bundle) -> None:
    """Libraries keep what they were fed; a run that was refused, or that other feeds came between, must leave no trace."""
    feeds = put(engine, example_feeds(bundle, "unet/guided_step.onnx"))
    first = {name: engine.to_host(value).copy() for name, value in engine.run(feeds).items()}
    other = {**feeds, "latent": engine.to_device(np.ones((1, 4, 4, 4), np.float32))}
    between = engine.to_host(engine.run(other)["denoised"]).copy()
    with pytest.raises(ConfigError):
        engine.run({**other, "row": engine.to_device(np.zeros(3, np.float32))})
    again = engine.run(feeds)
    assert not np.array_equal(between, first["denoised"])
    for name, want in first.items():
        np.testing.assert_array_equal(engine.to_host(again[name]), want)


def test_outputs_feed_the_next_call(engine: Engine, bundle: Bundle) -> None:
    feeds = put(engine, example_feeds(bundle, "unet/guided_step.onnx"))
    first = engine.run(feeds)
    second = engine.run({**feeds, "latent": first["next_latent"], "denoised_before": first["denoised"]})
    assert not np.array_equal(engine.to_host(first["denoised"]), engine.to_host(second["denoised"]))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("latent", np.zeros((1, 4, 4, 4), np.float64)),
        ("latent", np.zeros((4, 4, 4), np.float32)),
        ("row", np.zeros(8, np.float32)),
        ("latent", np.zeros((1, 5, 4, 4), np.float32)),
        ("stranger", np.zeros(1, np.float32)),
    ],
    ids=["dtype", "rank", "length", "channels", "name"],
)
def test_feeds_that_do_not_fit_are_refused_by_name(engine: Engine, bundle: Bundle, name: str, array: np.ndarray) -> None:
    feeds = {**example_feeds(bundle, "unet/guided_step.onnx"), name: array}
    with pytest.raises(ConfigError, match=name):
        engine.run(put(engine, feeds))


def test_a_missing_feed_and_a_plain_number_are_refused(engine: Engine, bundle: Bundle) -> None:
    feeds = put(engine, example_feeds(bundle, "unet/guided_step.onnx"))
    with pytest.raises(ConfigError, match="row"):
        engine.run({name: value for name, value in feeds.items() if name != "row"})
    with pytest.raises(ConfigError, match="numpy"):
        engine.run({**feeds, "row": 3.0})


def test_a_closed_engine_cannot_run(engine: Engine, bundle: Bundle) -> None:
    with engine:
        pass
    with pytest.raises(EngineError, match="closed"):
        engine.run({})


def test_static_shapes_make_another_engine_that_refuses_other_sizes(backend: Backend, bundle: Bundle, tmp_path: Path) -> None:
    store, setup = Store.open(tmp_path), Setup.of(backend.name, threads=1)
    build(backend, bundle, store, ["tiny/turbo/step@64x64"])
    assert engine_key(bundle, "tiny/turbo/step@64x64", setup).digest != engine_key(bundle, "tiny/turbo/step", setup).digest
    with open_or_skip(backend, bundle, store, "tiny/turbo/step@64x64") as engine:
        engine.run(put(engine, example_feeds(bundle, "unet_turbo/step.onnx")))
        with pytest.raises(ConfigError, match=r"denoised_before is 'float32\[2, 4, 4, 4\]': expected float32\[1, 4, 4, 4\]"):
            engine.run(put(engine, example_feeds(bundle, "unet_turbo/step.onnx", {"batch": 2})))


def test_a_bundle_of_one_size_gets_engines_of_that_size(backend: Backend, bundle_copy: Path, tmp_path: Path) -> None:
    rewrite_manifest(bundle_copy, lambda manifest: manifest["image"].update(any_size=False, sizes=[[64, 64]]))
    bundle, store = Bundle.open(bundle_copy), Store.open(tmp_path / "store")
    build(backend, bundle, store, ["tiny/turbo/step"])
    with open_or_skip(backend, bundle, store, "tiny/turbo/step") as engine:
        assert engine.inputs["latent"].shape == (1, 4, 4, 4)
        assert "height=4" in engine.key.shapes


def test_an_engine_that_cannot_be_read_is_an_error(backend: Backend, tmp_path: Path) -> None:
    for name in ("model.onnx", "model.blob", "interface.json"):
        (tmp_path / name).write_bytes(b"no engine")
    obstacle = backend.obstacle()
    if obstacle is not None:
        pytest.skip(f"{backend.name} opens no engine here, so none that is damaged: {obstacle}")
    with pytest.raises(EngineError, match=r"the engine cannot be opened: .*build the engine again"):
        backend.open(tmp_path, make_spec(threads=1))


def test_an_unknown_provider_names_the_known_ones(backend: Backend) -> None:
    with pytest.raises(ConfigError, match=f"provider is 'abacus': expected .*{backend.default_provider}"):
        backend.device(make_spec("abacus", 1))


def test_no_weight_is_unpacked_while_running(built_home: Path) -> None:
    import onnx

    for stored in Store.open(built_home).engines():
        model = onnx.load(stored.path / "model.onnx", load_external_data=False)
        kinds = {tensor.data_type for tensor in model.graph.initializer}
        assert onnx.TensorProto.FLOAT16 not in kinds, stored.key.graph
        made = {name for node in model.graph.node for name in node.output} | {value.name for value in model.graph.input}
        assert all(set(node.input) <= made for node in model.graph.node if node.op_type == "Cast"), stored.key.graph


def test_threads_of_onnxruntime_spin_during_a_run_and_stop_when_it_ends(bundle: Bundle, built_home: Path) -> None:
    """Threads that spin on would take the cores from the next engine's; no time is measured here, which other programs would disturb."""
    graph = bundle.root / bundle.graph_path("base", "guided_step")
    with (
        open_engine(bundle, Store.open(built_home), "tiny/base/guided_step", Setup(threads=1)) as engine,
        OnnxRuntimeBackend().open_reference(graph) as unoptimised,
    ):
        for each in (engine._engine, unoptimised):  # type: ignore[attr-defined]
            options = each._session.get_session_options()  # type: ignore[attr-defined]
            entries = [options.get_session_config_entry(f"session.{name}") for name in ("intra_op.allow_spinning", "force_spinning_stop")]
            assert entries == ["1", "1"]


def test_weights_are_laid_out_for_the_processor_where_the_engine_runs_not_where_it_is_built(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [""], OnnxRuntimeBackend._session

    def note_session(self: OnnxRuntimeBackend, path: Path, options: Any, *rest: Any) -> Any:
        seen[0] = "unset"
        with suppress(RuntimeError):
            seen[0] = options.get_session_config_entry("session.disable_prepacking")
        return real(self, path, options, *rest)

    monkeypatch.setattr(OnnxRuntimeBackend, "_session", note_session)
    tool, spec = OnnxRuntimeBackend(), make_spec(threads=1)
    tool.build(bundle.path(bundle.graph_path("vae", "decode")), tmp_path, spec)
    assert seen == ["1"]
    tool.open(tmp_path, spec).close()
    assert seen == ["unset"]
