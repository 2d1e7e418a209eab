"""TensorRT for RTX really builds, without a GPU; what runs engines is tried on a driver played by host memory."""

from __future__ import annotations

import importlib
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from costroute_rt import Runtime
from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.backends.tensorrt import backend as tensorrt_backend
from costroute_rt.engines.backends.tensorrt.backend import TensorRtBackend
from costroute_rt.engines.backends.tensorrt.engine import Interface, Loaded, TensorRtEngine
from costroute_rt.engines.building import build as build_module
from costroute_rt.engines.building.build import open_engine
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.gate import GateResult
from costroute_rt.engines.building.lookup import engine_key, explain_engines, names_to_build
from costroute_rt.engines.building.plan import plan_builds
from costroute_rt.engines.building.progress import OpenEvent
from costroute_rt.engines.building.usage import survey
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.onnx_model import graph_spec
from costroute_rt.engines.bundle.size import known_size, with_size
from costroute_rt.engines.machine import device as device_module
from costroute_rt.engines.machine import installation
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BackendError, ConfigError, EngineError
from costroute_rt.family.calls import candidate_names, engine_names
from tests.engines.conftest import rewrite_manifest
from tests.engines.fake_cuda import FakeContext, FakeEngine, gpu_of, make_memory, needs_cuda_core, needs_no_driver
from tests.tiny_bundle import write_tiny_bundle

NAME, MB = "tensorrt-rtx", 1_000_000
needs_library = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="builds engines by TensorRT for RTX, which is missing: pip install costroute-rt[tensorrt-rtx]"
)
ANY_SIZE = ["tiny/text_encoder/encode", "tiny/turbo/step", "tiny/base/condition", "tiny/base/guided_step", "tiny/vae/decode"]
GRAPHS = [*ANY_SIZE, "tiny/turbo/step@64x64", "tiny/base/guided_step@64x64", "tiny/vae/decode@64x64"]


def build(
    bundle: Path | Bundle,
    home: Path | Store,
    setup: dict[str, str] | None = None,
    names: list[str] | None = None,
    size: tuple[int, int] | None = None,
    **how: Any,
) -> list[build_module.BuildReport]:
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    store, asked = home if isinstance(home, Store) else Store.open(home), Setup.of(NAME, threads=1, **(setup or {}))
    names = names_to_build(bundle, engine_names(bundle), asked) if names is None else names
    return build_module.build_engines(bundle, store, names if size is None else with_size(bundle, names, size), asked, **how)


@pytest.fixture(scope="session")
def rtx_home(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the tiny bundle's engines for TensorRT for RTX."""
    home = tmp_path_factory.mktemp("rtx")
    build(tiny_bundle, home, measure=False)
    return home


@pytest.fixture
def rtx_store(rtx_home: Path, tmp_path: Path) -> Store:
    return Store.open(shutil.copytree(rtx_home, tmp_path / "rtx"))


@needs_library
def test_every_graph_the_pool_needs_is_built_with_progress_and_only_once(tiny_bundle: Path, tmp_path: Path) -> None:
    events: list[OpenEvent] = []
    first = build(tiny_bundle, tmp_path, progress=events.append, measure=False)
    assert [(report.engine, report.built) for report in first] == [(name, True) for name in GRAPHS]
    assert all(event.share is None or 0 <= event.share <= 1 for event in events)
    assert [event.engine for event in events if event.share == 1] == GRAPHS
    events.clear()
    again = build(tiny_bundle, tmp_path, progress=events.append, measure=False)
    assert not any(report.built for report in again)
    assert [(event.done, event.total) for event in events] == [(0, 0)]


@needs_library
@needs_cuda_core
@needs_no_driver
def test_an_engine_built_without_a_driver_is_kept_and_reported_as_unproved(tiny_bundle: Path, rtx_home: Path) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(rtx_home)
    reports = build(bundle, store)
    assert [(each.proved, each.max_abs_error, each.median_ms) for each in reports] == [(False, None, None)] * len(GRAPHS)
    assert [stored.gate for stored in store.engines()] == [{}] * len(GRAPHS)
    assert all(found.is_good for found in store.verify())
    with pytest.raises(BackendError, match=r"an NVIDIA GPU, found .*install the NVIDIA driver"):
        open_engine(bundle, store, "tiny/base/guided_step", Setup.of(NAME, threads=1))


@needs_library
@needs_cuda_core
@needs_no_driver
@pytest.mark.parametrize("how", ["build", "background_build"])
def test_a_runtime_that_could_not_run_builds_nothing(tiny_bundle: Path, tmp_path: Path, how: str) -> None:
    with pytest.raises(BackendError, match="driver") as caught:
        Runtime.open(tiny_bundle, home=tmp_path, backend=NAME, **{how: True})  # type: ignore[arg-type]
    assert caught.value.exit_code == 6
    assert not list(tmp_path.iterdir())


@needs_library
def test_the_key_says_what_the_engine_is_for(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    key = engine_key(bundle, "tiny/base/guided_step", Setup.of(NAME, threads=1))
    assert (key.backend, key.provider, key.precision, key.device, key.driver) == (NAME, "cuda", "float16", "ampere+", "any")
    assert key.backend_version == get_backend(NAME).version
    assert key.shapes.startswith("batch=1 batch_size=1 ")
    assert "height=1..4..8" in key.shapes
    condition = engine_key(bundle, "tiny/base/condition", Setup.of(NAME, threads=1))
    assert "rows=1..2..2" in condition.shapes
    assert "height" not in condition.shapes


@needs_library
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"setup": {"precision": "float32"}}, "precision"),
        ({"setup": {"target": "ada"}}, "device"),
        ({"size": (32, 64)}, "shapes"),
    ],
)
def test_another_request_is_another_engine(tiny_bundle: Path, rtx_store: Store, change: dict[str, Any], field: str) -> None:
    before = {stored.digest for stored in rtx_store.engines()}
    reports = build(tiny_bundle, rtx_store, names=["tiny/turbo/step", "tiny/vae/decode"], measure=False, **change)
    assert all(report.built for report in reports)
    assert before < {stored.digest for stored in rtx_store.engines()}
    assert not any(report.built for report in build(tiny_bundle, rtx_store, measure=False))
    if "setup" in change:
        asked = Setup.of(NAME, threads=1, **change["setup"])
        found = explain_engines(Bundle.open(tiny_bundle), Store.open(rtx_store.root), engine_names(Bundle.open(tiny_bundle)), asked)
        assert {each.problem for each in found if each.engine in ("tiny/turbo/step", "tiny/vae/decode")} == {None}
        assert {difference.field for each in found for difference in each.differences} == {field}


@needs_library
def test_changed_weights_and_versions_build_exactly_what_depends_on_them(
    tiny_bundle: Path, rtx_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_tiny_bundle(tmp_path / "other", seed=1)
    for folder in ("text_encoder", "unet", "vae"):
        shutil.rmtree(tmp_path / "other" / folder)
        shutil.copytree(tiny_bundle / folder, tmp_path / "other" / folder)
    names = [name for name in other.files if name.split("/")[0] in ("text_encoder", "unet", "vae")]
    files = {
        name: {"sha256": entry.sha256, "bytes": entry.bytes} for name, entry in Bundle.open(tiny_bundle).files.items() if name in names
    }
    rewrite_manifest(tmp_path / "other", lambda manifest: manifest["files"].update(files))
    changed, setup = Bundle.open(tmp_path / "other"), Setup.of(NAME, threads=1)
    missing = [each for each in explain_engines(changed, rtx_store, engine_names(changed), setup) if each.problem]
    assert [(each.engine, [d.field for d in each.differences]) for each in missing] == [("tiny/turbo/step", ["weights_sha256"])]

    monkeypatch.setattr(importlib.import_module("tensorrt_rtx"), "__version__", "99.0")
    monkeypatch.setattr(installation.Installation, "has_other_version", lambda *_: False)
    missing = explain_engines(Bundle.open(tiny_bundle), rtx_store, engine_names(Bundle.open(tiny_bundle)), Setup.of(NAME, threads=1))
    assert {d.field for each in missing for d in each.differences} == {"backend_version"}
    assert all(each.problem for each in missing)


@needs_library
@pytest.mark.parametrize("error", [KeyboardInterrupt, ConfigError("anything", 1, "2")])
def test_a_stop_in_the_middle_of_a_build_leaves_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    monkeypatch.setattr(tensorrt_backend, "_POLL_S", 0.0)
    steps = threading.active_count()

    def stop(event: OpenEvent) -> None:
        if event.share:
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        build(tiny_bundle, tmp_path, names=["tiny/base/guided_step"], progress=stop)
    store = Store.open(tmp_path)
    assert store.engines() == []
    assert not list(store.folder.iterdir())
    assert threading.active_count() == steps


@needs_library
def test_a_cancelled_builder_stops_at_its_next_step(tiny_bundle: Path, tmp_path: Path) -> None:
    backend, bundle = TensorRtBackend(NAME), Bundle.open(tiny_bundle)
    spec = Setup.of(NAME, threads=1).spec(bundle, "tiny/turbo/step")
    graph = bundle.path("unet_turbo/step.onnx")
    model = tensorrt_backend._prepare(graph, spec)
    ranges = tensorrt_backend._ranges_of(model, spec)
    configure = backend._configure(spec, tmp_path)
    job = tensorrt_backend._Job(backend._trt, graph, model.SerializeToString(), graph_spec(model), configure, ranges)
    job.cancelled.set()
    with pytest.raises(EngineError, match=r"cannot be built.*[Cc]ancel"):
        job.compile()
    assert job.share < 0.5


@needs_library
def test_a_graph_it_cannot_take_is_an_error_with_its_reason(bundle_copy: Path, tmp_path: Path) -> None:
    from tests.engines.conftest import relist

    path = bundle_copy / "vae/decode.onnx"
    model = onnx.load(path, load_external_data=False)
    model.graph.node[0].op_type = "Teleport"
    path.write_bytes(model.SerializeToString())
    relist(bundle_copy, "vae/decode.onnx")
    with pytest.raises(EngineError, match="Teleport"):
        build(bundle_copy, tmp_path / "home", names=["tiny/vae/decode"])
    assert not list((tmp_path / "home/engines").iterdir())


@needs_library
@pytest.mark.parametrize("target", ["turing", "ampere", "ada", "blackwell"])
def test_engines_are_built_for_other_cards(tiny_bundle: Path, tmp_path: Path, target: str) -> None:
    (report,) = build(tiny_bundle, tmp_path, names=["tiny/turbo/step"], setup={"target": target}, measure=False)
    (stored,) = Store.open(tmp_path).engines()
    assert report.built
    assert stored.key.device == target


@needs_library
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"provider": "cpu"}, "provider is 'cpu': expected cuda"),
        ({"precision": "bfloat16"}, "float16 or float32"),
        ({"target": "kepler"}, r"one of ampere\+, turing"),
    ],
)
def test_unsupported_settings_are_refused_before_building(tiny_bundle: Path, tmp_path: Path, how: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(tiny_bundle, tmp_path, how)
    assert not list(tmp_path.iterdir())


@needs_library
def test_an_axis_of_which_nothing_is_known_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    spec = BuildSpec(provider="cuda", precision="float16", shapes=(("height", 4),))
    with pytest.raises(ConfigError, match="without batch"):
        TensorRtBackend(NAME).build(tiny_bundle / "unet_turbo/step.onnx", tmp_path, spec)


def test_a_missing_library_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"backend tensorrt, found .*install the tensorrt extra") as caught:
        get_backend("tensorrt")
    assert caught.value.install == ("costroute-rt[cpu,tensorrt]",)


class Proving:
    """A device on which engines run, for the part of building that only needs to know that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, problem: str | None = None) -> None:
        self.checked = 0
        self.problem, self.card = problem, ("Some Card sm_89", "600.1")
        monkeypatch.setattr(TensorRtBackend, "obstacle", lambda *_: None)
        monkeypatch.setattr(device_module, "gpu", lambda: self.card)
        monkeypatch.setattr(build_module, "_check", self.check)

    def check(self, *_: Any) -> GateResult:
        self.checked += 1
        return GateResult(max_abs_error=0.001, tolerance=0.03, engine_ms=1.0, reference_ms=9.0, problem=self.problem)


@needs_library
def test_where_it_can_run_it_is_proved_once_without_being_built_again(
    tiny_bundle: Path, rtx_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {stored.digest: stored for stored in rtx_store.engines()}
    device = Proving(monkeypatch)
    monkeypatch.setattr(TensorRtBackend, "build", None)
    reports = build(tiny_bundle, rtx_store, measure=False)
    assert all(report.proved and report.max_abs_error == 0.001 for report in reports)
    assert device.checked == len(GRAPHS)
    for stored in rtx_store.engines():
        old = before[stored.digest]
        assert (stored.files, stored.built_at, stored.build_s) == (old.files, old.built_at, old.build_s)
        assert stored.gate["device"] == "Some Card sm_89 600.1"
        assert rtx_store.find(stored.key) is not None

    build(tiny_bundle, rtx_store, measure=False)
    assert device.checked == len(GRAPHS)
    device.card = ("Another Card sm_120", "600.1")
    build(tiny_bundle, rtx_store, measure=False)
    assert device.checked == 2 * len(GRAPHS)


@needs_library
def test_opening_proves_first_and_quarantines_a_wrong_engine(tiny_bundle: Path, rtx_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    Proving(monkeypatch, problem="output denoised differs")
    bundle = Bundle.open(tiny_bundle)
    for _ in range(2):
        with pytest.raises(EngineError, match="quarantined: output denoised differs"):
            open_engine(bundle, rtx_store, "tiny/turbo/step", Setup.of(NAME, threads=1))


@needs_library
def test_what_was_quarantined_on_another_card_is_built_again_here(
    tiny_bundle: Path, rtx_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Proving(monkeypatch, problem="output denoised differs")
    bundle = Bundle.open(tiny_bundle)
    how = {"names": ["tiny/turbo/step"], "measure": False}
    for _ in range(2):
        with pytest.raises(EngineError, match=r"turbo/step .* quarantined: output denoised differs"):
            build(tiny_bundle, rtx_store, **how)
    assert device.checked == 1

    device.card, device.problem = ("Another Card sm_120", "600.1"), None
    (planned,) = plan_builds(bundle, rtx_store, ["tiny/turbo/step"], Setup.of(NAME, threads=1))
    assert (planned.builds, planned.why) == (True, "quarantined on another device: output denoised differs")
    (report,) = build(tiny_bundle, rtx_store, **how)
    assert (report.built, report.proved, report.quarantined) == (True, True, None)


@needs_library
def test_a_plan_says_that_an_unproved_engine_is_checked_not_built(
    tiny_bundle: Path, rtx_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(tiny_bundle)
    Proving(monkeypatch)
    (planned,) = plan_builds(bundle, rtx_store, ["tiny/turbo/step"], Setup.of(NAME, threads=1))
    assert (planned.builds, planned.why, planned.build_s) == (False, "it exists, and will be checked on this device", 0.0)


@needs_library
def test_an_engine_that_knows_its_size_is_found_by_it(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    setup = Setup.of(NAME, "auto", "auto", 1)
    assert (setup.provider, setup.precision) == ("cuda", "float16")
    assert known_size(bundle, engine_key(bundle, "tiny/base/guided_step@64x96", setup).shapes) == (64, 96)
    assert known_size(bundle, engine_key(bundle, "tiny/base/guided_step", setup).shapes) is None


@needs_library
def test_the_list_shows_unproved_engines_and_what_uses_them(tiny_bundle: Path, rtx_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert {(each.state, bool(each.used_by)) for each in survey(bundle, rtx_store, candidate_names(bundle))} == {("not proved", True)}
    Proving(monkeypatch)
    build(tiny_bundle, rtx_store, measure=False)
    assert {each.state for each in survey(bundle, rtx_store, candidate_names(bundle))} == {"ready"}


@pytest.fixture(params=["captured", "by the library"])
def engine(request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path: Path) -> TensorRtEngine:
    """The tiny guided step as an engine on a driver that is played."""
    return make_engine(tiny_bundle, captures=request.param == "captured")


def make_engine(bundle_path: Path, *, captures: bool) -> TensorRtEngine:
    bundle, (memory, gpu) = Bundle.open(bundle_path, verify=False), make_memory()
    context = FakeContext(gpu, str(bundle.path("unet/guided_step.onnx")))
    log = SimpleNamespace(reason=lambda: "no reason")
    loaded = Loaded(None, None, context, None, log)
    ranges = (("batch", 1, 1, 2), ("height", 1, 4, 8), ("width", 1, 4, 8))
    interface = Interface(bundle.graphs["unet/guided_step.onnx"], ranges)
    return TensorRtEngine(memory, loaded, interface, bundle_path, 1 << 20, None, captures=captures)


def expected(bundle: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return OnnxRuntimeBackend().open_reference(bundle / "unet/guided_step.onnx").run(feeds)


def test_an_engine_computes_on_what_it_is_fed_at_every_call(engine: TensorRtEngine, tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle, verify=False)
    for batch, height in ((1, 4), (1, 4), (2, 6), (1, 4)):
        feeds = example_feeds(bundle, "unet/guided_step.onnx", {"batch": batch, "height": height})
        values = {name: engine.to_device(array) for name, array in feeds.items()}
        for turn in range(4):
            feeds["latent"] = np.asarray(feeds["latent"] + np.float32(turn))
            values["latent"] = engine.to_device(feeds["latent"])
            results = engine.run(values)
            for name, want in expected(tiny_bundle, feeds).items():
                np.testing.assert_allclose(engine.to_host(results[name]), want, rtol=1e-4, atol=1e-4)


def test_results_are_not_overwritten_by_later_calls(engine: TensorRtEngine, tiny_bundle: Path) -> None:
    feeds = {name: engine.to_device(a) for name, a in example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx").items()}
    first = engine.run(feeds)
    kept = engine.to_host(first["denoised"])
    for _ in range(3):
        later = engine.run({**feeds, "latent": first["next_latent"], "denoised_before": first["denoised"]})
    np.testing.assert_array_equal(engine.to_host(first["denoised"]), kept)
    assert not np.array_equal(engine.to_host(later["denoised"]), kept)


def test_between_noise_and_result_only_the_row_crosses_to_the_device(engine: TensorRtEngine, tiny_bundle: Path) -> None:
    arrays = example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx")
    feeds = {name: engine.to_device(array) for name, array in arrays.items()}
    before = replace(engine._memory.transfers)
    for _ in range(5):
        results = engine.run({**feeds, "row": engine.to_device(arrays["row"])})
        feeds |= {"latent": results["next_latent"], "denoised_before": results["denoised"]}
    after = engine._memory.transfers
    assert (after.to_host, after.to_device - before.to_device) == (0, 5)
    assert after.to_device_bytes - before.to_device_bytes == 5 * arrays["row"].nbytes


def test_steps_after_the_first_are_launches_of_one_recorded_graph(tiny_bundle: Path) -> None:
    engine = make_engine(tiny_bundle, captures=True)
    feeds = {name: engine.to_device(a) for name, a in example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx").items()}
    context = engine._loaded.context  # type: ignore[union-attr]
    for _ in range(5):
        engine.run(feeds)
    assert context.enqueued == 2  # once as it is, once recorded
    assert gpu_of(engine._memory).calls.count("cuGraphLaunch") == 4


def test_a_run_returns_when_the_gpu_is_done(engine: TensorRtEngine, tiny_bundle: Path) -> None:
    feeds = {name: engine.to_device(a) for name, a in example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx").items()}
    for _ in range(3):
        engine.run(feeds)
        assert not gpu_of(engine._memory).pending


def test_a_call_waits_while_another_thread_has_the_stream(
    engine: TensorRtEngine, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = {name: engine.to_device(a) for name, a in example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx").items()}
    monkeypatch.setattr(tensorrt_backend, "_import", lambda _: SimpleNamespace(__version__="1"))
    monkeypatch.setattr(tensorrt_backend, "open_cuda", lambda: engine._memory)
    backend = TensorRtBackend(NAME)
    monkeypatch.setattr(backend, "_open", lambda *_: engine)
    calls: list[Callable[[], object]] = [
        lambda: engine.run(feeds),
        lambda: engine.to_device(np.zeros(8, np.float32)),
        lambda: engine.to_host(feeds["row"]),
        lambda: backend.open(tmp_path, BuildSpec()),
        engine.close,
    ]
    gpu = gpu_of(engine._memory)
    for call in calls:
        done = threading.Event()
        thread = threading.Thread(target=lambda call=call, done=done: [call(), done.set()])
        with engine._memory.lock:
            before = len(gpu.calls)
            thread.start()
            assert not done.wait(0.05)
            assert len(gpu.calls) == before
        assert done.wait(30)
        thread.join()


def test_text_that_stays_is_copied_into_place_once(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(tiny_bundle, captures=False)
    feeds = {name: engine.to_device(a) for name, a in example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx").items()}
    engine.run(feeds)
    copies: list[int] = []
    monkeypatch.setattr(engine._memory, "copy", lambda source, target, nbytes: copies.append(source))
    engine.run({**feeds, "row": engine.to_device(np.zeros(9, np.float32))})
    assert len(copies) == 1 + len(engine.outputs)


def test_a_length_outside_its_range_names_the_nearest(engine: TensorRtEngine, tiny_bundle: Path) -> None:
    for sizes, message in (({"batch": 3}, "batch from 1 to 2, the nearest being 2"), ({"height": 9}, "height from 1 to 8")):
        arrays = example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx", sizes)
        with pytest.raises(ConfigError, match=message):
            engine.run({name: engine.to_device(array) for name, array in arrays.items()})


class FakeLibrary:
    """TensorRT, as far as opening an engine goes."""

    __version__ = "1"

    class ILogger:
        ERROR, INTERNAL_ERROR = 1, 0

    def __init__(self, engine: FakeEngine) -> None:
        self.Runtime = lambda log: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)


@pytest.mark.parametrize(
    ("free", "weights", "kept"),
    [
        (600 * MB, 400 * MB, 400 * MB),  # 100 MB to work in, 100 MB for others
        (500 * MB, 400 * MB, 270 * MB),  # and 30 MB where weights are copied to
        (300 * MB, 400 * MB, 70 * MB),
        (100 * MB, 400 * MB, 0),
        (100 * MB, 0, 0),  # built to have all its weights on the card
    ],
)
def test_weights_that_the_gpu_has_no_room_for_stay_in_the_computers_memory(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free: int,
    weights: int,
    kept: int,
) -> None:
    bundle = Bundle.open(tiny_bundle, verify=False)
    memory, gpu = make_memory(capacity_bytes=800 * MB, free_bytes=free)
    context = FakeContext(gpu, str(bundle.path("unet/guided_step.onnx")))
    found = FakeEngine(context, weights, workspace=100 * MB, scratch=30 * MB)
    monkeypatch.setattr(tensorrt_backend, "_import", lambda _: FakeLibrary(found))
    monkeypatch.setattr(tensorrt_backend, "open_cuda", lambda: memory)
    monkeypatch.setattr(tensorrt_backend.device, "named_gpu", lambda: ("Some Card sm_89", "600.1"))
    Interface(bundle.graphs["unet/guided_step.onnx"], (("batch", 1, 1, 2), ("height", 1, 4, 8), ("width", 1, 4, 8))).write(tmp_path)
    (tmp_path / tensorrt_backend.PLAN).write_bytes(b"plan" * 1000)

    with TensorRtBackend("tensorrt").open(tmp_path, BuildSpec()) as engine:
        assert found.budget == kept
        assert engine.resident_bytes == 4000 - (weights - kept) + found.device_memory_size_v2
        arrays = example_feeds(bundle, "unet/guided_step.onnx")
        results = engine.run({name: engine.to_device(array) for name, array in arrays.items()})
        np.testing.assert_allclose(engine.to_host(results["denoised"]), expected(tiny_bundle, arrays)["denoised"], rtol=1e-4, atol=1e-4)
    messages = [record.getMessage() for record in caplog.records if "weights" in record.getMessage()]
    assert len(messages) == (kept < weights)
    assert all(f"has room for {kept / 1e9:.2f} GB of its {weights / 1e9:.2f} GB of weights" in each for each in messages)


@needs_library
@pytest.mark.parametrize("streams", [False, True])
def test_only_engines_of_many_weights_are_built_to_leave_some_off_the_card(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    backend, bundle, found = TensorRtBackend(NAME), Bundle.open(tiny_bundle), []
    spec = Setup.of(NAME, threads=1).spec(bundle, "tiny/vae/decode")
    graph = bundle.path("vae/decode.onnx")
    weights = tensorrt_backend._weight_bytes(tensorrt_backend._prepare(graph, spec), spec)
    assert weights == 2 * sum(int(np.prod(each.dims)) for each in onnx.load(graph, load_external_data=False).graph.initializer)
    monkeypatch.setattr(tensorrt_backend, "_STREAMED_FROM_BYTES", weights + (0 if streams else 1))
    add_profile = tensorrt_backend._Job._add_profile

    def look(self: Any, builder: Any, network: Any, config: Any) -> None:
        found.append(config.get_flag(backend._trt.BuilderFlag.WEIGHT_STREAMING))
        add_profile(self, builder, network, config)

    monkeypatch.setattr(tensorrt_backend._Job, "_add_profile", look)
    backend.build(graph, tmp_path, spec)
    assert found == [streams]
    assert (tmp_path / tensorrt_backend.PLAN).stat().st_size > 0


def test_a_closed_engine_holds_no_memory_of_the_device(engine: TensorRtEngine, tiny_bundle: Path) -> None:
    arrays = example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx")
    results = engine.run({name: engine.to_device(array) for name, array in arrays.items()})
    del results
    engine.close()
    engine.close()
    assert gpu_of(engine._memory).buffers == {}
    with pytest.raises(EngineError, match="closed"):
        engine.run({})


def test_a_call_that_fails_says_why(tiny_bundle: Path) -> None:
    engine: Engine = make_engine(tiny_bundle, captures=False)
    engine._loaded.context.execute_async_v3 = lambda _: False  # type: ignore[attr-defined]
    arrays = example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx")
    with pytest.raises(EngineError, match="failed while running: no reason"):
        engine.run({name: engine.to_device(array) for name, array in arrays.items()})


def test_a_plain_array_is_refused(engine: TensorRtEngine, tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="to_device made of a numpy array"):
        engine.run(example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx"))
