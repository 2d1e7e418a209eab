"""Reading ONNX files without the onnx package says what that package says."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from costroute_rt.engines.bundle import Bundle
from costroute_rt.engines.onnx_file import read_input_axes


def test_axes_are_those_of_the_onnx_package(tiny_bundle: Path) -> None:
    for name in Bundle.open(tiny_bundle).graphs:
        path = tiny_bundle / name
        inputs = onnx.load(path, load_external_data=False).graph.input
        wanted = {each.name: [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in inputs}
        assert read_input_axes(path) == wanted


def test_a_file_that_is_cut_short_is_no_graph(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes((tiny_bundle / "unet/step.onnx").read_bytes()[:-7])
    with pytest.raises(ValueError, match="not ONNX"):
        read_input_axes(tmp_path / "cut.onnx")
