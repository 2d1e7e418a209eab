"""Graph specs: fixing free axes, agreement with ONNX models, and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import onnx
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.graph_spec import fix_axes, to_json
from costroute_rt.engines.bundle.manifest_reader import parse_graph_spec
from costroute_rt.engines.bundle.onnx_file import read_graph_spec
from costroute_rt.engines.bundle.onnx_model import fix_model_axes, graph_spec
from costroute_rt.engines.bundle.section import parse_section

LENGTHS = {"batch": 2, "height": 4}


def test_free_axes_are_fixed_by_name(tiny_bundle: Path) -> None:
    spec = Bundle.open(tiny_bundle).graphs["unet_turbo/step.onnx"]
    fixed = fix_axes(spec, LENGTHS)
    assert (spec.inputs["latent"].shape, fixed.inputs["latent"].shape) == (("batch", 4, "height", "width"), (2, 4, 4, "width"))
    assert fixed.outputs["denoised"].shape == (2, 4, 4, "width")


@pytest.mark.parametrize("name", ["unet_turbo/step.onnx", "vae/decode.onnx", "text_encoder/model.onnx"])
def test_models_and_their_specs_agree_before_and_after_fixing_axes(tiny_bundle: Path, name: str) -> None:
    model = onnx.load(tiny_bundle / name, load_external_data=False)
    spec = graph_spec(model)
    assert spec == read_graph_spec(tiny_bundle / name)
    fix_model_axes(model, LENGTHS)
    assert graph_spec(model) == fix_axes(spec, LENGTHS)


def test_a_spec_survives_json(tiny_bundle: Path) -> None:
    def fail(problem: str) -> NoReturn:
        raise AssertionError(problem)

    for spec in Bundle.open(tiny_bundle).graphs.values():
        assert parse_graph_spec(parse_section(json.dumps(to_json(spec)).encode(), fail)) == spec
