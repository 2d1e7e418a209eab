"""Building: what is good is kept, what is wrong is quarantined, and two builders do not harm each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building import build as build_module
from costroute_rt.engines.building import gate
from costroute_rt.engines.building.build import open_engine
from costroute_rt.engines.building.gate import Reference, check_engine, compare
from costroute_rt.engines.building.lookup import explain_engines
from costroute_rt.engines.building.progress import OpenEvent
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BundleError, EngineError
from costroute_rt.family.calls import engine_names
from tests.engines.conftest import build, relist

BUILDER = """
import sys
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.store.store import Store
from costroute_rt.family.calls import engine_names
bundle = Bundle.open(sys.argv[1])
reports = build_engines(bundle, Store.open(sys.argv[2]), engine_names(bundle), Setup(threads=1), measure=False)
print(sum(report.built for report in reports))
"""


def test_what_the_pool_needs_is_built_once(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, store, seen = Bundle.open(tiny_bundle), Store.open(tmp_path), list[OpenEvent]()
    first = build(bundle, store, Setup(threads=1), progress=seen.append)
    names = ["tiny/text_encoder/encode", "tiny/turbo/step", "tiny/base/condition", "tiny/base/guided_step", "tiny/vae/decode"]
    assert engine_names(bundle) == names
    started = dict.fromkeys((event.stage, event.engine) for event in seen if event.done < event.total)
    assert list(started) == [*(("build", name) for name in names), *(("measure", name) for name in names), ("measure", None)]
    assert {event.total for event in seen} == {11}
    assert [event.done for event in seen] == sorted(event.done for event in seen)
    assert seen[-1].done == 11
    assert all(report.built and report.median_ms and report.size_bytes for report in first)

    seen.clear()
    assert not any(report.built for report in build(bundle, store, Setup(threads=1), progress=seen.append))
    assert [(event.done, event.total, event.fraction) for event in seen] == [(0, 0, 1.0)]
    forced = build(bundle, store, Setup(threads=1), names=["tiny/vae/decode"], force=True, progress=seen.append)
    assert [(report.engine, report.built) for report in forced] == [("tiny/vae/decode", True)]


def test_any_graph_can_be_built_by_name(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(tmp_path)
    build(bundle, store, Setup(threads=1), names=["tiny/scorer/score", "tiny/vae/encode", "tiny/turbo/guided_step"], measure=False)
    with open_engine(bundle, store, "tiny/scorer/score", Setup(threads=1)) as engine:
        scores = engine.run({"pixels": np.zeros((1, 64, 64, 3), np.uint8)})
    np.testing.assert_allclose(scores["sky"].sum(axis=1), 1, rtol=1e-5)


def test_the_report_of_a_stop_is_the_stop(tiny_bundle: Path, tmp_path: Path) -> None:
    def progress(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(Bundle.open(tiny_bundle), Store.open(tmp_path), Setup(threads=1), progress=progress)
    assert Store.open(tmp_path).engines() == []


def test_weights_that_give_no_numbers_are_named(bundle_copy: Path, tmp_path: Path) -> None:
    name = "unet_turbo/diffusion_pytorch_model.safetensors"
    data = bytearray((bundle_copy / name).read_bytes())
    data[-2:] = np.array(np.nan, np.float16).tobytes()
    (bundle_copy / name).write_bytes(data)
    relist(bundle_copy, name)
    store = Store.open(tmp_path / "home")
    with pytest.raises(BundleError, match=r"unet_turbo.*NaN or infinite") as caught:
        build(Bundle.open(bundle_copy), store, Setup(threads=1))
    assert caught.value.path.endswith(name)
    assert "tiny/turbo/step" not in [stored.key.graph for stored in store.engines()]
    assert not list(store.folder.glob(".*"))


def test_a_foreign_graph_under_a_right_hash_is_refused(bundle_copy: Path, tmp_path: Path) -> None:
    path = bundle_copy / "vae/decode.onnx"
    node = onnx.helper.make_node("Identity", ["anything"], ["pixels"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("anything", "pixels")]
    graph = onnx.helper.make_graph([node], "foreign", value[:1], value[1:])
    path.write_bytes(onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]).SerializeToString())
    relist(bundle_copy, "vae/decode.onnx")
    with pytest.raises(BundleError, match=r"decode\.onnx.*its inputs are anything float32.*the manifest says latent float32"):
        build(Bundle.open(bundle_copy), Store.open(tmp_path / "home"), Setup(threads=1), names=["tiny/vae/decode"])


def test_a_graph_of_unknown_operators_is_an_error_that_names_them(bundle_copy: Path, tmp_path: Path) -> None:
    path = bundle_copy / "vae/decode.onnx"
    model = onnx.load(path, load_external_data=False)
    model.graph.node[0].op_type = "Teleport"
    path.write_bytes(model.SerializeToString())
    relist(bundle_copy, "vae/decode.onnx")
    with pytest.raises(EngineError, match="Teleport"):
        build(Bundle.open(bundle_copy), Store.open(tmp_path / "home"), Setup(threads=1), names=["tiny/vae/decode"])
    assert list((tmp_path / "home/engines").iterdir()) == []


def test_a_wrong_engine_is_quarantined_with_the_reason(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(tmp_path)
    monkeypatch.setattr(gate, "compare", lambda *_: (0.5, 0.1, "output pixels differs from the reference by 0.5, more than 0.1"))
    with pytest.raises(EngineError, match="is quarantined: output pixels differs"):
        build(bundle, store, Setup(threads=1), names=["tiny/vae/decode"])
    with pytest.raises(EngineError, match=r"quarantined.*force a build"):
        open_engine(bundle, store, "tiny/vae/decode", Setup(threads=1))
    assert "output pixels differs" in str(store.verify()[0].quarantined)
    assert store.engines()[0].size_bytes == 0
    (found,) = explain_engines(bundle, store, ["tiny/vae/decode"], Setup(threads=1))
    assert "quarantined" in str(found.problem)
    monkeypatch.undo()
    with pytest.raises(EngineError, match=r"quarantined: output pixels differs.*force a build to try it again"):
        build(bundle, store, Setup(threads=1), names=["tiny/vae/decode"])
    assert build(bundle, store, Setup(threads=1), names=["tiny/vae/decode"], force=True)[0].built


def test_a_quarantined_engine_does_not_stop_the_others(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, store, real = Bundle.open(tiny_bundle), Store.open(tmp_path), gate.compare

    def compare_all_but_pixels(expected: Any, *rest: Any) -> Any:
        return (0.5, 0.1, "output pixels differs") if "pixels" in expected else real(expected, *rest)

    monkeypatch.setattr(gate, "compare", compare_all_but_pixels)
    with pytest.raises(EngineError, match=r"tiny/vae/decode .*it is quarantined: output pixels differs"):
        build(bundle, store, Setup(threads=1), names=["tiny/vae/decode", "tiny/turbo/step"])
    with open_engine(bundle, store, "tiny/turbo/step", Setup(threads=1)):
        pass


class StubEngine:
    """Gives fixed outputs and takes a given time, by a clock of its own."""

    def __init__(self, call_s: float) -> None:
        self.now, self.call_s, self.calls = 0.0, call_s, 0
        self.delays_s: list[float] = []

    def run(self, feeds: object) -> dict[str, np.ndarray]:
        self.calls += 1
        self.now += self.call_s + (self.delays_s.pop() if self.delays_s else 0.0)
        return {"y": np.zeros(3, np.float32)}

    def fail(self) -> None:
        raise AssertionError("called again")

    def to_device(self, array: np.ndarray) -> np.ndarray:
        return array

    to_host = to_device


@pytest.mark.parametrize(
    ("call_s", "reference_s", "slow", "calls", "reference_calls"),
    [
        (0.010, 0.010, False, 4, 4),
        (0.015, 0.010, False, 4, 4),
        (0.030, 0.010, True, 21, 21),
        (8.0, 0.5, True, 4, 4),
        (8.0, 10.0, False, 1, 1),
        (20.0, 10.0, True, 3, 1),
    ],
)
def test_a_slow_engine_is_distinguished_from_a_fast_one(
    call_s: float, reference_s: float, slow: bool, calls: int, reference_calls: int
) -> None:
    stub, made = StubEngine(call_s), [0]

    def reference() -> dict[str, np.ndarray]:
        made[0] += 1
        stub.now += reference_s
        return {"y": np.zeros(3, np.float32)}

    result = check_engine(stub, {}, Reference.run(reference, lambda: stub.now), "float32", clock=lambda: stub.now)  # type: ignore[arg-type]
    assert (result.problem is not None) is slow
    assert (result.engine_ms, result.reference_ms) == pytest.approx((call_s * 1e3, reference_s * 1e3))
    assert (stub.calls, made[0]) == (calls, reference_calls)


def test_an_engine_whose_first_call_was_disturbed_is_called_again() -> None:
    stub = StubEngine(5.0)
    reference = Reference({"y": np.zeros(3, np.float32)}, 5000.0, stub.fail)
    stub.delays_s = [15.0]
    result = check_engine(stub, {}, reference, "float32", clock=lambda: stub.now)  # type: ignore[arg-type]
    assert (result.problem, result.engine_ms, stub.calls) == (None, pytest.approx(5000.0), 2)


def test_the_graph_is_closed_before_the_engine_opens_where_calls_are_long(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_LONG_MS", 0.0)
    happened, real_open, real_close = list[str](), OnnxRuntimeBackend.open, OnnxRuntimeEngine.close

    def note_open(self: OnnxRuntimeBackend, *args: Any) -> OnnxRuntimeEngine:
        happened.append("engine opens")
        return real_open(self, *args)

    def note_close(self: OnnxRuntimeEngine) -> None:
        happened.append("graph closes" if self._shrinks_arena else "engine closes")
        real_close(self)

    monkeypatch.setattr(OnnxRuntimeBackend, "open", note_open)
    monkeypatch.setattr(OnnxRuntimeEngine, "close", note_close)
    build(Bundle.open(tiny_bundle), Store.open(tmp_path), Setup(threads=1), names=["tiny/vae/decode"], measure=False)
    assert happened[:2] == ["graph closes", "engine opens"]


def race(*pairs: tuple[float, float]) -> gate.Race:
    """A race between engines that take so many seconds a call, in each pass."""
    now, turns = [0.0], {"engine": 0, "other": 0}

    def call(who: str, index: int) -> None:
        done, turns[who] = turns[who], turns[who] + 1
        now[0] += pairs[max(0, done - 1) // 10][index]  # one to warm up, then ten in each pass

    return gate.run_race(lambda: call("engine", 0), lambda: call("other", 1), clock=lambda: now[0])


@pytest.mark.parametrize(
    ("passes", "lost", "ratio"),
    [
        ([(0.010, 0.020)] * 3, False, 0.5),
        ([(0.0104, 0.010)] * 3, False, 1.04),
        ([(0.011, 0.010)] * 3, True, 1.1),
        ([(0.011, 0.010), (0.020, 0.010), (0.009, 0.010)], False, 0.9),
        ([(0.011, 0.010), (0.020, 0.010), (0.012, 0.010)], True, 1.1),
    ],
)
def test_an_engine_loses_a_race_where_it_is_slower_in_each_of_three_passes(
    passes: list[tuple[float, float]], lost: bool, ratio: float
) -> None:
    found = race(*passes)
    assert (len(found.engine_ms), len(found.other_ms)) == (3, 3)
    assert found.engine_ms == pytest.approx([1000 * ours for ours, _ in passes])
    assert found.is_lost is lost
    assert found.ratio == pytest.approx(ratio)


def test_a_race_of_slow_engines_makes_few_calls() -> None:
    now, calls = [0.0], [0]

    def call() -> None:
        calls[0] += 1
        now[0] += 5.0

    assert gate.run_race(call, call, clock=lambda: now[0]).ratio == 1.0
    assert calls[0] == 2 * (1 + 3)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (np.array([0, 1, np.nan], np.float32), "not finite"),
        (np.array([0, 1, 2.1], np.float32), "differs from the reference by 0.1"),
        (np.array([0, 1], np.float32), r"float32\[2\], the graph gives float32\[3\]"),
        (np.array([0, 1, 2], np.float64), "float64"),
    ],
)
def test_the_gate_says_what_is_wrong(found: np.ndarray, message: str) -> None:
    import re

    _, _, problem = compare({"y": np.array([0, 1, 2], np.float32)}, {"y": found}, "float32")
    assert problem is not None
    assert re.search(message, problem)


def test_the_gate_lets_rounding_pass() -> None:
    want = {"y": np.array([0, 1, 2], np.float32), "pixels": np.array([0, 128, 255], np.uint8)}
    have = {"y": want["y"] + np.float32(1e-4), "pixels": np.array([1, 127, 255], np.uint8)}
    assert compare(want, have, "float32")[2] is None
    assert compare(want, {**have, "pixels": np.array([3, 128, 255], np.uint8)}, "float32")[2] is not None
    assert compare(want, {"y": want["y"]}, "float32")[2] == "output pixels is missing, the graph gives uint8[3]"


@pytest.mark.parametrize(("size", "error", "passes"), [(1000, 1.9, True), (1000, 2.1, False), (0.01, 0.0019, True), (0.01, 0.0021, False)])
def test_the_gate_s_tolerance_grows_with_the_output_but_not_below_a_size_of_one(size: float, error: float, passes: bool) -> None:
    want = np.array([0, 0.5 * size, -size], np.float64)
    _, tolerance, problem = compare({"y": want}, {"y": want + np.array([error, 0, 0])}, "float32")
    assert (problem is None) == passes
    assert tolerance == pytest.approx(2e-3 * max(1.0, size))


def test_two_builders_at_once_end_with_one_good_engine(tiny_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tiny_bundle), str(tmp_path)]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [int(builder.communicate(timeout=120)[0]) for builder in builders]
    store = Store.open(tmp_path)
    assert [builder.returncode for builder in builders] == [0, 0]
    assert sum(counts) == 5
    assert [found.is_good for found in store.verify()] == [True] * 5
    assert not list(store.folder.glob(".*"))


def test_manifests_hold_no_surprises(built_home: Path) -> None:
    for stored in Store.open(built_home).engines():
        values: dict[str, Any] = json.loads((stored.path / "manifest.json").read_text())
        assert values["format"] == "costroute-engine"
        assert values["key"] == stored.key.to_json()
        assert values["quarantined"] is None
        assert set(values["files"]) == {"model.onnx", "model.data"}
        assert values["gate"]["max_abs_error"] <= values["gate"]["tolerance"]


def test_importing_the_module_loads_no_inference_library() -> None:
    code = f"import sys, {build_module.__name__}; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
