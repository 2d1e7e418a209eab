"""V3: an engine is built from listed bytes alone, however an ONNX file hides where its weights are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.onnx_scan import read_external_tensors
from costroute_rt.error import BundleError
from tests.security.hostile_graph import GRAPH, adds, copy_bundle, external, model, part, replace_graph, seal

HIDDEN = external("evil.bin")
UPPER = 1 << 32
"""A bit of a tag that protobuf drops: 5 << 3 | 2 | UPPER is the field 5 to it."""


def attribute(number: int, content: bytes, kind: int) -> bytes:
    """A Constant with an attribute; number: the field with its value."""
    names = {5: b"value", 22: b"sparse_value"}
    inner = part(1, names.get(number, b"value")) + part(number, content) + part(20, kind)
    return part(2, b"w") + part(4, b"Constant") + part(5, inner)


def function() -> bytes:
    """A FunctionProto whose attribute has a default tensor in another file."""
    default = part(1, b"t") + part(5, HIDDEN) + part(20, 4)
    constant = part(2, b"o") + part(4, b"Constant") + part(5, part(1, b"value") + part(21, b"t") + part(20, 4))
    opset = part(9, part(1, b"") + part(2, 17))
    return part(1, b"F") + part(5, b"o") + part(7, constant) + part(10, b"d") + part(11, default) + opset


SPARSE = part(1, HIDDEN) + part(2, part(1, 4) + part(2, 7) + part(8, b"i")) + part(3, 4)
TRICKS: dict[str, bytes] = {
    "plain": model(adds(part(5, HIDDEN))),
    "upper bits of an initializer's tag": model(adds(part(5, HIDDEN, tag=5 << 3 | 2 | UPPER))),
    "upper bits of the tags of external data": model(adds(part(5, external("evil.bin", tag_bits=UPPER)))),
    "sparse value": model(adds(b"", attribute(22, SPARSE, 11))),
    "sparse values": model(adds(b"", attribute(23, SPARSE, 12))),
    "sparse initializer": model(adds(part(15, SPARSE))),
    "tensor of a constant": model(adds(b"", attribute(5, HIDDEN, 4))),
    "list of tensors": model(adds(b"", attribute(10, HIDDEN, 9))),
    "graph of an attribute": model(adds(b"", attribute(6, part(5, HIDDEN), 5))),
    "graphs of an attribute": model(adds(b"", attribute(11, part(5, HIDDEN), 10))),
    "default of a function's attribute": model(adds(b""), part(25, function())),
    "training": model(adds(b""), part(20, part(1, part(5, HIDDEN)))),
    "unknown field of the model": model(adds(b""), part(77, HIDDEN)),
    "unknown field of a tensor": model(adds(part(5, external("evil.bin") + part(77, 1)))),
    "two graphs": model(adds(b""), part(7, adds(part(5, HIDDEN)))),
    "attribute in two halves": model(adds(b"", part(2, b"w") + part(4, b"Constant") + part(5, part(5, HIDDEN[:8]) + part(5, HIDDEN[8:])))),
    "location after the data": model(adds(part(5, HIDDEN[:-2]))),
    "group": model(adds(part(5, HIDDEN)), b"\x0b\x0c"),
    "field 0": model(adds(part(5, HIDDEN)), b"\x02\x00"),
    "length of six bytes": model(adds(b"")) + b"\x3a\x80\x80\x80\x80\x80\x00",
    "other operators": model(adds(b"", part(2, b"w") + part(4, b"EPContext") + part(7, b"com.microsoft"))),
    "address in memory": model(adds(part(5, external("*/_ORT_MEM_ADDR_/*")))),
}


@pytest.mark.parametrize("data", TRICKS.values(), ids=TRICKS)
def test_weights_that_the_manifest_does_not_list_are_refused(tiny_bundle: Path, tmp_path: Path, data: bytes) -> None:
    root = replace_graph(tiny_bundle, tmp_path, data)
    (root / "vae/evil.bin").write_bytes(np.full(4, 7, np.float32).tobytes())
    with pytest.raises(BundleError, match=r"decode\.onnx"):
        Bundle.open(root)


def test_the_same_graph_with_its_weights_in_the_file_is_accepted(tiny_bundle: Path, tmp_path: Path) -> None:
    inline = part(1, 4) + part(2, 1) + part(8, b"w") + part(9, np.zeros(4, np.float32).tobytes())
    Bundle.open(replace_graph(tiny_bundle, tmp_path, model(adds(part(5, inline)))))


def test_onnx_runtime_would_use_the_hidden_weights(tmp_path: Path) -> None:
    import onnxruntime as ort

    (tmp_path / "evil.bin").write_bytes(np.full(4, 7, np.float32).tobytes())
    for name in ("plain", "upper bits of an initializer's tag", "upper bits of the tags of external data"):
        (tmp_path / "g.onnx").write_bytes(TRICKS[name])
        session = ort.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(None, {"x": np.zeros(4, np.float32)})[0], [7, 7, 7, 7], err_msg=name)


def repeat_key(tensor: onnx.TensorProto) -> None:
    tensor.external_data.add(key="location", value="evil.bin")


def add_raw_data(tensor: onnx.TensorProto) -> None:
    tensor.raw_data = b"1234"


def forget_location(tensor: onnx.TensorProto) -> None:
    tensor.data_location = onnx.TensorProto.DEFAULT


def set_entry(key: str, value: str) -> Callable[[onnx.TensorProto], None]:
    def change(tensor: onnx.TensorProto) -> None:
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value
                return
        tensor.external_data.add(key=key, value=value)

    change.__name__ = f"{key}={value}"
    return change


CHANGES = [repeat_key, add_raw_data, forget_location, set_entry("offset", "-1"), set_entry("offset", "1" * 18), set_entry("offset", "0x10")]
CHANGES += [set_entry("length", "1"), set_entry("length", "٣"), set_entry("prepacked_1", "x")]
CHANGES += [set_entry("location", each) for each in ("../vae/x", "/etc/passwd", "", "x\\y", "c:x")]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_external_data_are_described_in_one_plain_way(tiny_bundle: Path, tmp_path: Path, change: Callable[..., None]) -> None:
    made = onnx.load(tiny_bundle / GRAPH, load_external_data=False)
    change(next(tensor for tensor in made.graph.initializer if tensor.external_data))
    with pytest.raises(BundleError, match=r"decode\.onnx"):
        Bundle.open(replace_graph(tiny_bundle, tmp_path, made.SerializeToString()))


def test_a_graph_under_another_ending_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    root = copy_bundle(tiny_bundle, tmp_path)
    text = (root / "manifest.json").read_text().replace(GRAPH, "vae/decode.bin")
    (root / "manifest.json").write_text(text)
    (root / GRAPH).rename(root / "vae/decode.bin")
    seal(root)
    with pytest.raises(BundleError, match=r"expected a file that ends in \.onnx"):
        Bundle.open(root)


def test_weights_that_are_used_many_times_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    made = onnx.load(tiny_bundle / GRAPH, load_external_data=False)
    first = next(tensor for tensor in made.graph.initializer if tensor.external_data)
    for index in range(10):
        copy = made.graph.initializer.add()
        copy.CopyFrom(first)
        copy.name = f"copy_{index}"
        copy.dims[:] = first.dims
    root = replace_graph(tiny_bundle, tmp_path, made.SerializeToString())
    with pytest.raises(BundleError, match="uses its weights more than 4 times"):
        Bundle.open(root)


def test_a_real_graph_is_read_in_full(tiny_bundle: Path) -> None:
    for name in Bundle.open(tiny_bundle).graphs:
        made = onnx.load(tiny_bundle / name, load_external_data=False)
        found = read_external_tensors((tiny_bundle / name).read_bytes())
        assert len(found) == sum(bool(tensor.external_data) for tensor in made.graph.initializer)
