"""Reading ONNX files without the onnx package."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec
from costroute_rt.engines.bundle.onnx_file import read_graph_spec


def test_specs_read_from_files_equal_those_of_the_manifest(tiny_bundle: Path) -> None:
    for name, spec in Bundle.open(tiny_bundle).graphs.items():
        assert read_graph_spec(tiny_bundle / name) == spec


@pytest.mark.parametrize("keep", [0, -7, 40])
def test_a_truncated_file_is_refused(tiny_bundle: Path, tmp_path: Path, keep: int) -> None:
    (tmp_path / "cut.onnx").write_bytes((tiny_bundle / "unet/step.onnx").read_bytes()[:keep])
    with pytest.raises(ValueError, match="not ONNX"):
        read_graph_spec(tmp_path / "cut.onnx")


def test_axes_without_a_name_are_called_question_mark(tmp_path: Path) -> None:
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [None, "batch", 3]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "g.onnx")
    spec = TensorSpec("int64", ("?", "batch", 3))
    assert read_graph_spec(tmp_path / "g.onnx") == GraphSpec({"x": spec}, {"y": spec})
