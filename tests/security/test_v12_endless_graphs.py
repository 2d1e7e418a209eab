"""V12: a graph that would run for ever, or fill the memory, is refused or stopped, with what to do."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from costroute_rt.engines.backends import polling
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.polling import LimitError, run_polled
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.building.limit import Limits, watch
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.onnx_scan import read_external_tensors
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BundleError, EngineError, Reason
from tests.security.hostile_graph import ENGINE, LOOP_CONSTANTS, decoder, loop, replace_graph

GIB = 1 << 30


def turns(count: int) -> tuple[str, Any]:
    return "turns", np.array(count, np.int64)


def scan() -> bytes:
    names = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("v", "v2")]
    body = helper.make_graph([helper.make_node("Identity", ["v"], ["v2"])], "body", names[:1], names[1:])
    return decoder([helper.make_node("Scan", ["latent"], ["level"], body=body, num_scan_inputs=1)])


def nested(depth: int) -> bytes:
    """If in If in If."""
    value = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])]
    graph = helper.make_graph([helper.make_node("Identity", ["start"], ["out"])], "branch", [], value)
    for _ in range(depth):
        graph = helper.make_graph([helper.make_node("If", ["yes"], ["out"], then_branch=graph, else_branch=graph)], "branch", [], value)
    return decoder([helper.make_node("If", ["yes"], ["level"], then_branch=graph, else_branch=graph)], LOOP_CONSTANTS)


ENDLESS: dict[str, tuple[bytes, str]] = {
    "many turns": (decoder([loop("turns")], [*LOOP_CONSTANTS, turns(1 << 62)]), "a loop of 4611686018427387904 turns"),
    "no number of turns": (decoder([loop("")], LOOP_CONSTANTS), "not known to end"),
    "computed turns": (
        decoder([helper.make_node("Mul", ["a", "a"], ["turns"]), loop("turns")], [*LOOP_CONSTANTS, ("a", np.array(1 << 31))]),
        "not known to end",
    ),
    "turns from an input": (decoder([loop("latent")], LOOP_CONSTANTS), "not known to end"),
    "two values of one name": (
        decoder([helper.make_node("Identity", ["a"], ["turns"]), loop("turns")], [*LOOP_CONSTANTS, turns(1), ("a", np.array(1 << 62))]),
        "not known to end",
    ),
    "loops in loops": (
        decoder([loop("turns", inner=[loop("turns", inner=[loop("turns")])])], [*LOOP_CONSTANTS, turns(1000)]),
        "a loop of 1000000",
    ),
    "scan": (scan(), "Scan, which is not known to end"),
    "deep": (nested(9), "graphs in each other"),
}


@pytest.mark.parametrize(("data", "problem"), ENDLESS.values(), ids=ENDLESS)
def test_a_graph_that_is_not_known_to_end_is_refused(tiny_bundle: Path, tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        Bundle.open(replace_graph(tiny_bundle, tmp_path, data))


def test_a_loop_of_a_few_turns_and_a_branch_are_allowed() -> None:
    assert read_external_tensors(decoder([loop("turns")], [*LOOP_CONSTANTS, turns(10)])) == []
    assert read_external_tensors(nested(1)) == []


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ConstantOfShape", ["size"], ["level"]),
        helper.make_node("Expand", ["start", "size"], ["level"]),
        helper.make_node("Tile", ["start", "size"], ["level"]),
        helper.make_node("Pad", ["start", "size"], ["level"]),
        helper.make_node("RandomNormal", [], ["level"], shape=[6 * GIB]),
    ],
    ids=lambda node: str(node.op_type),
)
def test_a_huge_size_in_a_graph_is_refused_before_memory_is_taken(tiny_bundle: Path, tmp_path: Path, node: Any) -> None:
    data = decoder([node], [*LOOP_CONSTANTS, ("size", np.array([6 * GIB]))])
    with pytest.raises(BundleError, match="has more than 268435456 numbers"):
        Bundle.open(replace_graph(tiny_bundle, tmp_path, data))


def test_a_size_in_a_constant_node_counts_too() -> None:
    nodes = [
        helper.make_node("Constant", [], ["size"], value_ints=[1 << 20, 1 << 20]),
        helper.make_node("ConstantOfShape", ["size"], ["level"]),
    ]
    with pytest.raises(ValueError, match="an output of ConstantOfShape"):
        read_external_tensors(decoder(nodes))


@pytest.mark.parametrize("dims", [[1 << 62], [1 << 20] * 20, [-1], [4, 4]], ids=str)
def test_a_tensor_with_other_numbers_than_its_shape_is_refused(dims: list[int]) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, raw_data=bytes(16))
    made = onnx.ModelProto(ir_version=8, graph=helper.make_graph([], "g", [], [], [tensor]))
    made.graph.initializer[0].dims[:] = dims
    with pytest.raises(ValueError, match="shape"):
        read_external_tensors(made.SerializeToString())


@pytest.mark.parametrize("axes", [[1 << 29], [1 << 62] * 20, [1 << 62] * 5000], ids=len)
def test_a_declared_value_of_a_huge_shape_is_refused(axes: list[int]) -> None:
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, axes)
    made = onnx.ModelProto(ir_version=8, graph=helper.make_graph([], "g", [], [], value_info=[value]))
    with pytest.raises(ValueError, match="the tensor v has more than 268435456 numbers"):
        read_external_tensors(made.SerializeToString())


@pytest.mark.parametrize("field", [b"\x0a\x02\x22\x00", b"\x0a\x03\x22\x01A", b"\x72\x00", b"\x2a\x00"], ids=repr)
def test_millions_of_small_fields_are_refused_by_their_number(field: bytes) -> None:
    graph = field * 600_000
    size, head = len(graph), bytearray()
    while size >= 128:
        head.append(size & 127 | 128)
        size >>= 7
    with pytest.raises(ValueError, match=r"too many fields|more than 100000 nodes|without an operator|unknown type"):
        read_external_tensors(b"\x3a" + bytes([*head, size]) + graph)


def test_a_computed_size_that_no_machine_has_is_an_error_that_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["size", "size"], ["product"]),
        helper.make_node("ConstantOfShape", ["product"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["level"], keepdims=1),
    ]
    bundle = Bundle.open(replace_graph(tiny_bundle, tmp_path, decoder(nodes, [("size", np.array([1 << 21]))])))  # 16 TiB
    with pytest.raises(EngineError, match="more memory than this machine has") as caught:
        build_engines(bundle, Store.open(tmp_path / "home"), [ENGINE], Setup(threads=1), measure=False)
    assert caught.value.reason is Reason.NO_MEMORY
    assert not list((tmp_path / "home/engines").iterdir())


class Clock:
    """Seconds that pass between two looks."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def test_a_build_that_takes_too_long_is_stopped_with_what_to_do(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(
        OnnxRuntimeBackend, "build", lambda self, graph, target, spec, poll: run_polled(release.wait, poll, what="it", stop=release.set)
    )
    with pytest.raises(LimitError, match=r"the build of tiny/vae/decode took longer than 120 s.*do not use a bundle of a source") as caught:
        build_engines(Bundle.open(tiny_bundle), Store.open(tmp_path), [ENGINE], Setup(threads=1), clock=Clock(1000.0))
    assert release.is_set()
    assert (caught.value.reason, caught.value.engine) == (Reason.TOO_LONG, ENGINE)
    assert not list((tmp_path / "engines").iterdir())


def test_a_check_that_takes_too_long_ends_the_run(tmp_path: Path) -> None:
    """The graph would run for years; ONNX Runtime itself ends it."""
    (tmp_path / "g.onnx").write_bytes(decoder([loop("turns")], [*LOOP_CONSTANTS, turns(1 << 62)]))
    with OnnxRuntimeBackend().open_reference(tmp_path / "g.onnx") as reference:
        feeds = {"latent": np.zeros((1, 4, 2, 2), np.float32)}
        poll = watch(None, Limits(60.0, GIB), "the check", clock=Clock(100.0))
        with pytest.raises(LimitError, match="took longer than 60 s"):
            run_polled(lambda: reference.run(feeds), poll, what="the check", stop=reference.stop)
        with pytest.raises(EngineError, match="terminate"):
            reference.run(feeds)


def test_work_that_cannot_be_stopped_is_abandoned_at_its_limit(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(polling, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(polling, "_GIVE_UP_S", 0.01)
    release = threading.Event()
    with pytest.raises(LimitError):
        run_polled(release.wait, watch(None, Limits(60.0, GIB), "the check", clock=Clock(100.0)), what="the check")
    assert "the check does not end" in caplog.text
    release.set()


def test_work_that_takes_too_much_memory_is_stopped() -> None:
    sizes = iter([1 * GIB, 2 * GIB, 4 * GIB])
    poll = watch(None, Limits(60.0, 2 * GIB), "the build of a/b/c", clock=lambda: 0.0, resident=lambda: next(sizes))
    poll(None)
    with pytest.raises(LimitError, match=r"the build of a/b/c took more than 2\.0 GiB of memory.*smaller bundle") as caught:
        poll(None)
    assert caught.value.reason is Reason.NO_MEMORY


def test_limits_grow_with_the_graph_and_poll_is_passed_on() -> None:
    assert Limits.of(7 * GIB).time_s > 2 * 3600
    assert Limits.of(0).time_s == 120
    shares = list[float | None]()
    watch(shares.append, Limits(60.0, GIB), "the build", clock=lambda: 0.0, resident=lambda: None)(0.5)
    assert shares == [0.5]
